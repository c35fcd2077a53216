"""Each package exports the names that other packages use."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "miiii_search"
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


@functools.cache
def all_imports() -> list[tuple[str, ast.ImportFrom]]:
    """Return each `from ... import ...` of the code, with the package that it is in."""
    return [
        (path.relative_to(ROOT).parts[0], node)
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]


def imported_names(package: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) for each class and function that another package imports from a module of this one."""
    for importer, node in all_imports():
        parts = (node.module or "").split(".")
        if importer != package and parts[:2] == ["miiii_search", package] and len(parts) == 3:
            yield from ((parts[2], alias.name) for alias in node.names if not alias.name.isupper())


@pytest.mark.parametrize("package", PACKAGES)
def test_exported_names_exist(package: str) -> None:
    module = import_module(f"miiii_search.{package}")
    assert module.__doc__ and module.__all__
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("stub", sorted(ROOT.rglob("__init__.pyi")), ids=lambda stub: stub.parent.name)
def test_type_checkers_see_the_names_that_are_exported(stub: Path) -> None:
    """lazy-loader exports what a stub imports, and a type checker what its `__all__` lists."""
    [listed] = [node.value for node in ast.parse(stub.read_text()).body if isinstance(node, ast.Assign)]
    module = import_module(".".join(("miiii_search", *stub.parent.relative_to(ROOT).parts)))
    assert sorted(ast.literal_eval(listed)) == sorted(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_names_that_others_use_are_exported(package: str) -> None:
    """A name that a module has too, as `study.extend`, is imported from its module."""
    modules = {path.stem for path in (ROOT / package).glob("*.py")}
    exported = set(import_module(f"miiii_search.{package}").__all__)
    used = {name for module, name in imported_names(package) if name not in modules and module in modules}
    assert used - exported == set()
