"""The Rich console of the command line, and the lines that a command prints about its work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.text import Text

COLOR_SYSTEMS: dict[str, Literal["standard", "256", "truecolor"] | None] = {
    **dict.fromkeys(("", "0", "false")),
    "2": "256",
    "3": "truecolor",
}
"""Rich's color system for each value of FORCE_COLOR. Any other value selects the 16 standard colors."""

FILE_WIDTH = 10_000
"""Columns of the console if standard output is not a terminal: tables in a file are never shortened."""

LINE_SECONDS = 20.0
"""Seconds between two lines about the progress if standard output is not a terminal."""


def _make_console() -> Console:
    """Return the console for standard output.

    Cursor movements are only written to a terminal. FORCE_COLOR enables colors in a file or a pipe.

    Markup and emoji codes are disabled, since names chosen by users may contain [brackets] and :colons:.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        return Console(highlight=False, markup=False, emoji=False, force_terminal=True)
    color_system = COLOR_SYSTEMS.get(os.environ.get("FORCE_COLOR", "").lower(), "standard")
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=False,
        force_interactive=False,
        color_system=color_system,
        width=FILE_WIDTH,
    )


console = _make_console()


def print_line(line: str) -> None:
    """Print a line without wrapping it and without interpreting markup."""
    console.print(line, soft_wrap=True, markup=False)


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Show a line with the current step in a terminal, until the context ends.

    Yields:
        A function that changes the line.
    """
    with console.status("reading") as status:
        yield lambda step: status.update(Text(step))
