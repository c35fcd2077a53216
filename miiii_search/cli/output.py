"""What a command says and asks in the course of its work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from miiii_search.cli import streams
from miiii_search.errors import MiiiiSearchError

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(result: RenderableType) -> None:
    """Print what the command was called for. It fails if that cannot be written."""
    from miiii_search.cli.views.console import console

    streams.need_output()
    console.print(result)


def write(data: str) -> None:
    """Write a file's text, such as TOML or JSON, to standard output: in UTF-8, whatever the terminal's encoding.

    The command fails if that cannot be written.
    """
    streams.need_output()
    sys.stdout.flush()
    sys.stdout.buffer.write(data.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def say(line: str) -> None:
    """Print a line about the work, which goes on if that cannot be written."""
    from miiii_search.cli.views.console import console

    console.print(line, soft_wrap=True, markup=False)


def warn(line: str) -> None:
    """Print a warning on standard error, which leaves standard output to what a program may read."""
    print(f"warning: {line}", file=sys.stderr)


_ignored: list[str] = []


def say_later(ignored: list[str]) -> None:
    """Keeps what was removed from the environment for `say_ignored`."""
    _ignored[:] = ignored


def say_ignored() -> None:
    """Says what was removed from the environment, in a command that trains."""
    if _ignored:
        say(f"ignored, since it could change results: {' '.join(_ignored)}; see docs/science.md")


def ask(question: str, yes: bool) -> None:
    """Goes on only if the answer is yes, or was given with the command."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise MiiiiSearchError("this asks first, and nobody is there to answer; add --yes")
    typer.confirm(question, abort=True)
