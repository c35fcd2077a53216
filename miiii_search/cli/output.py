"""What a command says and asks in the course of its work."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
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


class LineHandler(logging.Handler):
    """A logging handler that prints each message as a line of the command.

    Messages go to standard output, through Rich, which leaves out colours where there is no terminal. Errors go to
    standard error. Neither can fail the work.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        try:
            line = self.format(record)
            if record.levelno >= logging.ERROR:
                print(line, file=sys.stderr)
            else:
                say(line)
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def logging_to_console() -> Iterator[None]:
    """Print what this package logs, from the level INFO on, as long as the context lasts."""
    logger, handler = logging.getLogger("miiii_search"), LineHandler()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a handler of the root logger would print it twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


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
