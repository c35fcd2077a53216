"""The page of the Python API. Its entries are filled by mkdocstrings; the table is for readers of the Markdown."""

from __future__ import annotations

import inspect
from pathlib import Path

import miiii_search
from website.reference.markdown import code, page, summary, table

GROUPS = {
    "Studies": ("create_study", "load_study", "list_studies", "delete_study", "Study", "StudySpec"),
    "What a study is made of": ("presets", "pruners"),
    "Runs": ("train", "load_run", "load_configuration", "analyze", "TrainedRun", "Configuration"),
    "What a run is": ("Experiment", "Hyperparameters", "Task"),
    "Errors": (),
}
"""Names of the library in reading order. All errors are in the last group."""


def python_api() -> str:
    """Return the page.

    Raises:
        ValueError: The library exports a name that no group has.
    """
    names = set(miiii_search.__all__) - {"__version__"}
    errors = sorted(name for name in names if name.endswith("Error"))
    groups = {**GROUPS, "Errors": ("MiiiiSearchError", *(name for name in errors if name != "MiiiiSearchError"))}
    if missing := names - {name for group in groups.values() for name in group}:
        raise ValueError(f"GROUPS in {Path(__file__).name} lacks {', '.join(sorted(missing))}")
    parts = []
    for title, group in groups.items():
        parts += [f"## {title}", table(("name", "is"), [(code(f"ms.{name}"), describe(name)) for name in group])]
        parts += [f"::: {path(name)}" for name in group if name != "presets"]
    return page(
        "Python",
        "Which names does `import miiii_search as ms` have?",
        "The [tutorial](../tutorials/from-python.md) shows how they are used together. In a checkout,\n"
        "`help(ms.create_study)` prints the same text.",
        *parts,
    )


def describe(name: str) -> str:
    """Return the first sentence about a name."""
    if name == "presets":
        return "The [presets](presets.md), by name."
    value = getattr(miiii_search, name)
    return summary(inspect.getdoc(value) or "")


def path(name: str) -> str:
    """Return the path at which a name is defined, since the library only exports it."""
    value = getattr(miiii_search, name)
    return value.__name__ if inspect.ismodule(value) else f"{value.__module__}.{name}"
