"""The picture of the packages in the documentation matches the imports of the code."""

from __future__ import annotations

import re
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
EDGE = re.compile(r"^    (\w+) --> (\w+)$", re.MULTILINE)


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the transitive reduction of an acyclic graph: the edges that no longer path replaces."""
    after: dict[str, set[str]] = {}
    for one, other in edges:
        after.setdefault(one, set()).add(other)

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        for other in after.get(start, ()):
            found |= {other} | reachable(other)
        return found

    return {
        (one, other)
        for one, other in edges
        if not any(other in reachable(step) for step in after[one] if step != other)
    }


def packages() -> set[tuple[str, str]]:
    """Return the pairs (importing package, imported package)."""
    graph = grimp.build_graph("miiii_search", exclude_type_checking_imports=True, cache_dir=None)
    names = {name for name in graph.find_children("miiii_search") if graph.find_children(name)}
    edges = set()
    for one in names:
        for other in names - {one}:
            if graph.direct_import_exists(importer=one, imported=other, as_packages=True):
                edges.add((one.rpartition(".")[2], other.rpartition(".")[2]))
    return edges


def test_the_picture_shows_the_imports() -> None:
    drawn = EDGE.findall((ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8"))
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == reduced(packages())
