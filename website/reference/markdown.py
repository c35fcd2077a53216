"""Pieces of Markdown, and the docstrings that the pages are made of."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]

NOTICE = "<!-- Written by python -m website.reference. Change the code that it describes instead. -->"


def page(title: str, question: str, *parts: str) -> str:
    """Return a page: its title, the question that it answers, and its parts."""
    return "\n\n".join([f"# {title}", NOTICE, question, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. Line breaks and bars within cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in cells)


def code(value: object) -> str:
    """Return a value in code font, or nothing for an empty one."""
    return f"`{value}`" if str(value) else ""


def wrap(text: str) -> str:
    """Return paragraphs, lists and code of a docstring with lines of at most 100 columns."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(
        block
        if block.startswith("    ")
        else textwrap.fill(" ".join(block.split()), 100, break_long_words=False, break_on_hyphens=False)
        for block in blocks
    )


def parse(module: ModuleType) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(inspect.getsource(module))


def class_docstrings(kind: type) -> dict[str, str]:
    """Return the docstrings of a class's attributes, by name."""
    [definition] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    return _docstrings(definition.body)


def module_docstrings(module: ModuleType) -> dict[str, str]:
    """Return the docstrings of a module's constants, by name."""
    return _docstrings(parse(module).body)


def summary(text: str) -> str:
    """Return the first paragraph of a docstring, as one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _docstrings(body: Sequence[ast.stmt]) -> dict[str, str]:
    found = {}
    for before, statement in itertools.pairwise(body):
        match before, statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
    return found
