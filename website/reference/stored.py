"""The page of stored files and tables."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import sqlalchemy as sa

from miiii_search.analysis.report import files as report_files
from miiii_search.experiment.metrics import Metrics
from miiii_search.experiment.record import Record
from miiii_search.runs import run_folder
from miiii_search.storage import artifact_stores, schema, study_attrs, trial_attrs
from miiii_search.study import archive, tables
from miiii_search.training import checkpoint
from website.reference.markdown import class_docstrings, code, module_docstrings, page, summary, table, wrap

INTRODUCTION = """\
[Storage](storage.md) says where each of them lies, and how large it is."""


def stored() -> str:
    """Return the page."""
    texts = module_docstrings(schema)
    tables = {table.name: texts[name] for name, table in vars(schema).items() if is_ours(table)}
    parts = ["## Tables", "Studies, trials, reports and attributes are in Optuna's tables. These are ours:"]
    for name, text in tables.items():
        parts += [f"### `{name}`", wrap(text), table(("column", "type"), columns(schema.METADATA.tables[name]))]
    parts += [
        "## Attributes of a study",
        wrap(study_attrs.__doc__ or ""),
        table(("key", "value"), attributes(study_attrs)),
        "## Attributes of a trial",
        table(("key", "value"), attributes(trial_attrs)),
        "## A run's folder",
        wrap(run_folder.__doc__ or ""),
        table(
            ("file", "content"),
            constants(run_folder, ("CONFIG", "METRICS", "RECORD", "WEIGHTS", "CURVES", "SNAPSHOTS")),
        ),
        "### `record.npz`",
        wrap(Record.__doc__ or ""),
        table(("array", "content"), record_arrays()),
        "### `metrics.json`",
        wrap(Metrics.__doc__ or ""),
        table(("key", "type", "content"), metrics_fields()),
        "## A report's folder",
        wrap(report_files.__doc__ or ""),
        table(("file", "content"), constants(report_files, ("PAGE", "NUMBERS"))),
        "## An exported table",
        *exported_tables(),
        "## A checkpoint",
        wrap(checkpoint.__doc__ or ""),
        "## An exported study",
        *archive_parts(),
        "## A folder or a bucket of artifacts",
        table(("file", "content"), constants(artifact_stores, ("MARKER",))),
    ]
    return page("Stored files and tables", "What do the commands store, and in which form?", INTRODUCTION, *parts)


def exported_tables() -> Iterator[str]:
    """Yield the columns of each table that `export` writes."""
    texts = module_docstrings(tables)
    yield "`miiii-search export` writes one of these. Their columns keep their names."
    for kind in tables.TABLE_KINDS:
        name = f"{kind.removesuffix('s').upper()}_COLUMNS"
        rows = [(code(column.name), column.unit, column.meaning) for column in getattr(tables, name)]
        yield f"### `{kind}`"
        yield wrap(texts[name])
        yield table(("column", "unit", "content"), rows)


def is_ours(value: object) -> bool:
    """Return whether a value is one of our own tables."""
    return isinstance(value, sa.Table) and value.name in schema.METADATA.tables


def columns(kind: sa.Table) -> Iterator[tuple[str, str]]:
    """Yield name and type of each column."""
    for column in kind.columns:
        notes = ["primary key"] * column.primary_key + ["unique"] * bool(column.unique) + ["index"] * bool(column.index)
        yield code(column.name), ", ".join([str(column.type).lower(), *notes])


def attributes(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield key and meaning of each attribute that a module defines."""
    for name, text in module_docstrings(module).items():
        if name.endswith("_KEY"):
            yield code(getattr(module, name)), text


def constants(module: ModuleType, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield value and docstring of constants."""
    texts = module_docstrings(module)
    for name in names:
        yield code(getattr(module, name)), summary(texts[name])


def record_arrays() -> Iterator[tuple[str, str]]:
    """Yield name and shape of each array of a record, from the comments of its fields."""
    for name, shape, note in re.findall(
        r"^    (\w+): \S+  # (\[[^\]]*\])(?:; (.*))?$", inspect.getsource(Record), re.M
    ):
        yield code(name), f"{code(shape)} {note}"
    yield "`spectrum_epoch`, `spectrum`", "`[snapshots]`, `[snapshots, p, p // 2 + 1]`, if there are snapshots"


def metrics_fields() -> Iterator[tuple[str, str, str]]:
    """Yield name, type and meaning of each metric of a run."""
    texts = class_docstrings(Metrics)
    for name in Metrics.model_fields:
        kind = str(inspect.get_annotations(Metrics)[name])
        per_task = "PerTask" in kind or "tuple" in kind
        words = "list of numbers, one per task" if per_task else "text" if "str" in kind else "number"
        yield code(name), words, texts.get(name, "")


def archive_parts() -> Iterator[str]:
    """Yield what the docstring of the archive says, with its members as a table."""
    text = inspect.cleandoc(archive.__doc__ or "")
    before, members, after = re.split(r"\n\nMembers::\n\n|\n\n(?=Reading)", text)
    yield wrap(before)
    rows = [line.split(None, 1) for line in members.splitlines()]
    yield table(("member", "content"), [(code(name), meaning) for name, meaning in rows])
    yield wrap(after)
