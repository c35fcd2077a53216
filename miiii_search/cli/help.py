"""The text of `--help`: commands in panels, and examples that can be copied.

Typer's own panels are drawn by Rich. They are plain text here, so that `--help` answers without importing Rich.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

NO_REWRAP = "\b"
"""A paragraph that begins with this line is shown with the line breaks of its docstring."""


def with_examples(docstring: str) -> str:
    """Return a docstring as the text of `--help`. The lines below `Examples:` are not rewrapped."""
    return docstring.replace("\n\nExamples:\n", f"\n\n{NO_REWRAP}\nExamples:\n")


class PanelGroup(TyperGroup):
    """A program whose help lists the commands below the names of their panels (`rich_help_panel`)."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the visible commands, one section per panel."""
        panels: dict[str, list[tuple[str, Any]]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                panels.setdefault(str(getattr(command, "rich_help_panel", "Commands")), []).append((name, command))
        name_width = max(len(name) for commands in panels.values() for name, _ in commands)
        summary_width = formatter.width - 6 - name_width
        for panel, commands in panels.items():
            with formatter.section(panel):
                formatter.write_dl(
                    [(name.ljust(name_width), command.get_short_help_str(summary_width)) for name, command in commands]
                )
