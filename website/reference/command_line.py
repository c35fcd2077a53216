"""The page of the command line: every command with its options, from Typer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from miiii_search.cli.commands import app
from website.reference.markdown import code, page, table, wrap

INTRODUCTION = """\
`miiii-search --help` lists the commands, and `miiii-search COMMAND --help` shows the same as this
page. An environment variable in the last column replaces its option; see
[environment variables](environment.md)."""


def commands() -> Mapping[str, Any]:
    """Return the commands that `--help` lists, in its order."""
    group: Any = typer.main.get_command(app)
    return {name: command for name, command in group.commands.items() if not command.hidden}


def command_line() -> str:
    """Return the page."""
    found = commands()
    overview = [
        (f"[`{name}`](#{name})", command.rich_help_panel, command.get_short_help_str(200))
        for name, command in found.items()
    ]
    parts = [table(("command", "group", "purpose"), overview)]
    for name, command in found.items():
        parts += describe(name, command)
    return page("Command line", "Which commands are there, and which options do they have?", INTRODUCTION, *parts)


def describe(name: str, command: Any) -> Iterator[str]:
    """Yield the section of a command: its heading, its text, its examples and its options."""
    text, _, examples = inspect.cleandoc(command.help).replace("\b\n", "").partition("Examples:\n")
    yield f"## `{name}`"
    yield wrap(text)
    yield examples.rstrip()
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and "--help" not in p.opts]
    if arguments:
        yield table(("argument", "meaning"), [(code(p.metavar or p.name.upper()), p.help or "") for p in arguments])
    if options:
        yield table(("option", "meaning", "default", "environment"), map(option_row, options))


def option_row(option: Any) -> tuple[str, str, str, str]:
    """Return the row of an option in the table."""
    names = " / ".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {option.metavar or type_of(option)}"
    low, high = option.min, option.max
    limits = f" From {low:g} to {high:g}." if None not in (low, high) else f" At least {low:g}." if low else ""
    variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
    return code(names + value), (option.help or "") + limits, default_of(option), ", ".join(map(code, variables))


def type_of(option: Any) -> str:
    """Return the placeholder of an option's value, as `--help` shows it."""
    kind = option.type_descriptor.annotation
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def default_of(option: Any) -> str:
    """Return the default of an option, or nothing if its text says it."""
    if option.is_flag:
        return ("on" if option.default else "off") if option.secondary_opts else ""
    return "" if option.default in (None, "", []) or not option.show_default else code(option.default)
