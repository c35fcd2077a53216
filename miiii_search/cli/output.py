"""Functions with which commands print results, lines about the work and warnings, and ask for a confirmation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from miiii_search.cli import streams
from miiii_search.errors import MiiiiSearchError
from miiii_search.files import write_file

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_result(result: RenderableType) -> None:
    """Print the result of a command. The command fails if standard output cannot be written."""
    from miiii_search.cli.views.console import console

    streams.require_output()
    console.print(result)


def write_result(text: str) -> None:
    """Write the text of a file, such as TOML or JSON, to standard output.

    The encoding is UTF-8, whatever the terminal's is. The command fails if standard output cannot be written.
    """
    streams.require_output()
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def write_out(out: Path, data: bytes | str) -> None:
    """Write the file that `--out` names. An existing one is replaced.

    Raises:
        MiiiiSearchError: The file cannot be written.
    """
    try:
        write_file(out, data)
    except OSError as error:
        raise MiiiiSearchError(f"cannot write {out}: {error.strerror}; choose another --out") from None


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Check that the value of an option is one of its two or more choices.

    Raises:
        MiiiiSearchError: It is not.
    """
    if value not in choices:
        raise MiiiiSearchError(f"{option} must be {', '.join(choices[:-1])} or {choices[-1]}, but is `{value}`")


def print_line(line: str) -> None:
    """Print a line about the work. The work continues if standard output cannot be written."""
    from miiii_search.cli.views.console import print_line

    print_line(line)


def warn(line: str) -> None:
    """Print a warning on standard error, so that standard output only holds what other programs may read."""
    print(f"warning: {line}", file=sys.stderr)


_removed_variables: list[str] = []


def remember_removed_variables(names: list[str]) -> None:
    """Keep the names of removed environment variables for `report_removed_variables`."""
    _removed_variables[:] = names


def report_removed_variables() -> None:
    """Print which environment variables were removed. Commands that train call this."""
    if _removed_variables:
        print_line(
            f"ignored, since it could change results: {' '.join(_removed_variables)}; see docs/explanation/numerics.md"
        )


def confirm(question: str, yes: bool) -> None:
    """Ask a question, unless `yes` is set, and end the command if the answer is no.

    Raises:
        MiiiiSearchError: Standard input is not a terminal.
        typer.Abort: The answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise MiiiiSearchError(
            "this command asks for a confirmation, but standard input is not a terminal; add --yes to confirm"
        )
    typer.confirm(question, abort=True)
