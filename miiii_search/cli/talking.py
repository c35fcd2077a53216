"""What a command says and asks in the course of its work."""

from __future__ import annotations

import sys

import typer

from miiii_search.errors import UserError


def say(line: str) -> None:
    from miiii_search.terminal.display import console

    console.print(line, soft_wrap=True, markup=False)


def ask(question: str, yes: bool) -> None:
    """Goes on only if the answer is yes, or was given with the command."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("this asks first, and nobody is there to answer; add --yes")
    typer.confirm(question, abort=True)
