"""Sizes that a reader can hold in the head; exceptions stand with their reasons in pyproject.toml.

`python tests/test_sizes.py` prints what is too large.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE_LINES = 300
FUNCTION_LINES = 60
ATTRIBUTES = 12
"""Attributes that a class sets in its constructor, or fields of a dataclass that is not frozen."""
PARAMETERS = 8
"""Parameters of a constructor."""


def stored_attributes(function: ast.FunctionDef) -> set[str]:
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def is_mutable_dataclass(node: ast.ClassDef) -> bool:
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(name.split("(")[0].endswith("dataclass") and "frozen=True" not in name for name in decorators)


def too_large(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield (what, by how much) for each thing in a file that is above a limit."""
    source = path.read_text(encoding="utf-8")
    if (lines := len(source.splitlines())) > MODULE_LINES:
        yield name, f"{lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES:
                yield f"{name}:{node.name}", f"{lines} lines"
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{name}:{node.name}", size) for size in sizes_above_limits(node))


def sizes_above_limits(node: ast.ClassDef) -> Iterator[str]:
    """Yield the sizes of a class that are above a limit."""
    if is_mutable_dataclass(node):
        fields = sum(isinstance(statement, ast.AnnAssign) for statement in node.body)
        if fields > ATTRIBUTES:
            yield f"{fields} attributes"
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            if (count := len(stored_attributes(statement))) > ATTRIBUTES:
                yield f"{count} attributes"
            arguments = statement.args
            if (count := len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1) > PARAMETERS:
                yield f"{count} parameters"


def all_too_large() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(ROOT.glob("miiii_search/**/*.py")):
        for what, size in too_large(path, str(path.relative_to(ROOT))):
            found.setdefault(what, []).append(size)
    return found


def test_nothing_is_too_large_but_for_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    exceptions = project["tool"]["miiii-search"]["size-exceptions"]
    found = all_too_large()
    assert len(exceptions) <= 10
    assert {what: found[what] for what in found if what not in exceptions} == {}
    assert [what for what in exceptions if what not in found] == [], "is small enough by now"
    assert all(len(reason.split()) >= 5 for reason in exceptions.values())


def test_each_limit_is_held(tmp_path: Path) -> None:
    file = tmp_path / "large.py"
    parameters = ", ".join(f"p{number}" for number in range(9))
    stores = "\n".join(f"        self.a{number} = 1" for number in range(13))
    fields = "\n".join(f"    f{number}: int" for number in range(13))
    file.write_text(
        f"class Large:\n    def __init__(self, {parameters}):\n{stores}\n@dataclass\nclass Wide:\n{fields}\n"
        "def long():\n" + "    pass\n" * 61 + "\n" * 300
    )
    assert {(what, size.split()[1]) for what, size in too_large(file, "large")} == {
        ("large", "lines"),
        ("large:long", "lines"),
        ("large:Large", "attributes"),
        ("large:Large", "parameters"),
        ("large:Wide", "attributes"),
    }


if __name__ == "__main__":
    for what, sizes in all_too_large().items():
        print(what, *sizes, sep="  ")
