"""Tables of a study for spreadsheets and other programs: its trials, their tasks, or their validation curves."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from optuna.trial import FrozenTrial

from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import Metrics
from miiii_search.storage.trial_attrs import METRICS_KEY, REPLICATE_KEY, RETRIES_KEY
from miiii_search.study.study import Study

TableKind = Literal["trials", "tasks", "curves"]
TableFormat = Literal["csv", "json", "parquet"]
TABLE_KINDS: tuple[str, ...] = get_args(TableKind)
TABLE_FORMATS: tuple[str, ...] = get_args(TableFormat)

Cell = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    """The name, which stays the same in later versions."""
    unit: str
    """The unit of its numbers, or the kind of its texts."""
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table of a study."""

    columns: list[str]
    """The names of the columns."""
    rows: list[list[Cell]]
    """The rows. A cell without a value is None."""


TRIAL_COLUMNS = (
    Column("number", "", "The trial's number in the study, from 0."),
    Column("state", "text", "`waiting`, `running`, `complete`, `pruned` or `fail`."),
    Column("value", "", "The objective: the accuracy, or 1 plus the share of the epochs that were saved."),
    Column("replicate", "", "The number of the trial's replicate, from 0."),
    Column("seed", "", "The seed of its weights and dropout masks."),
    Column("epochs_trained", "epochs", "The number of epochs that were trained."),
    Column("epochs_to_solve", "epochs", "The epoch at which every scored task was solved."),
    Column("validation_accuracy", "0 to 1", "The mean over the scored tasks at the end."),
    Column("started_at", "ISO 8601, UTC", "The time at which its training first began."),
    Column("ended_at", "ISO 8601, UTC", "The time at which it ended."),
    Column("duration", "s", "The time from the one to the other, with all interruptions."),
    Column("training_seconds", "s", "The time for which it was trained, without interruptions."),
    Column("retries", "", "How often its run failed and was repeated."),
    Column("worker", "text", "The worker that ended it."),
    Column("device", "text", "The device on which it was trained."),
    Column("reason", "text", "Why it was pruned or failed."),
)
"""The columns of the table of trials. After them comes `params_NAME` for each dimension of the search space."""

TASK_COLUMNS = (
    Column("number", "", "The trial's number in the study."),
    Column("modulus", "", "The modulus of the task."),
    Column("train_accuracy", "0 to 1", "On the whole training split, without dropout."),
    Column("train_loss", "nats", "The mean cross-entropy there."),
    Column("validation_accuracy", "0 to 1", "On the validation split."),
    Column("validation_loss", "nats", "The mean cross-entropy there."),
    Column("test_accuracy", "0 to 1", "On the test split."),
    Column("test_loss", "nats", "The mean cross-entropy there."),
)
"""The columns of the table of tasks: one row per ended trial and task, at the end of the trial."""

CURVE_COLUMNS = (
    Column("number", "", "The trial's number in the study."),
    Column("epoch", "epochs", "The epoch of the report."),
    Column("validation_accuracy", "0 to 1", "The mean over the scored tasks at this epoch."),
)
"""The columns of the table of curves: one row per report of a trial."""


def read_table(study: Study, kind: TableKind) -> Table:
    """Read a table of a study as it is at this moment. The study may be running.

    Args:
        study: The study.
        kind: `trials` for one row per trial, `tasks` for one per ended trial and task, `curves` for one per report.
    """
    trials = study.trials()
    if kind == "trials":
        dimensions = list(study.spec.space)
        names = [column.name for column in TRIAL_COLUMNS] + [f"params_{name}" for name in dimensions]
        return Table(names, [_trial_row(trial, dimensions) for trial in trials])
    columns, rows = (TASK_COLUMNS, _task_rows) if kind == "tasks" else (CURVE_COLUMNS, _curve_rows)
    return Table([column.name for column in columns], [row for trial in trials for row in rows(trial)])


def write_table(table: Table, format: TableFormat) -> bytes:
    """Return a table as the content of a file.

    Args:
        table: The table.
        format: `csv` as in RFC 4180 with a header, `json` for a list of objects, or `parquet`. JSON has null for
            a number that is not finite.

    Raises:
        MiiiiSearchError: A Parquet file needs pandas and pyarrow, and they are not installed.
    """
    return _WRITERS[format](table)


def to_data_frame(table: Table) -> Any:
    """Return a table as a pandas data frame. Times are pandas timestamps.

    Raises:
        ImportError: pandas is not installed.
    """
    import pandas as pd

    frame = pd.DataFrame(table.rows, columns=table.columns)
    for name in ("started_at", "ended_at"):
        if name in frame:
            frame[name] = pd.to_datetime(frame[name])
    return frame


def _trial_row(trial: FrozenTrial, dimensions: list[str]) -> list[Cell]:
    attributes, metrics = trial.user_attrs, trial.user_attrs.get(METRICS_KEY, {})
    began, ended = trial.datetime_start, trial.datetime_complete
    values: dict[str, Any] = {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "replicate": trial.system_attrs.get(REPLICATE_KEY, 0),
        "epochs_trained": attributes.get("epochs_trained", metrics.get("epochs_trained")),
        "epochs_to_solve": attributes.get("epochs_to_solve", metrics.get("epochs_to_solve")),
        "validation_accuracy": metrics.get("validation_accuracy_mean"),
        "started_at": _utc(began),
        "ended_at": _utc(ended),
        "duration": (ended - began).total_seconds() if began and ended else None,
        "training_seconds": attributes.get("seconds"),
        "retries": attributes.get(RETRIES_KEY, 0),
        **{name: attributes.get(name) for name in ("seed", "worker", "device", "reason")},
    }
    return [values[column.name] for column in TRIAL_COLUMNS] + [trial.params.get(name) for name in dimensions]


def _task_rows(trial: FrozenTrial) -> Iterator[list[Cell]]:
    if METRICS_KEY not in trial.user_attrs:
        return
    metrics = Metrics(**trial.user_attrs[METRICS_KEY])
    for k, modulus in enumerate(metrics.moduli):
        yield [trial.number, modulus, *(getattr(metrics, column.name)[k] for column in TASK_COLUMNS[2:])]


def _curve_rows(trial: FrozenTrial) -> Iterator[list[Cell]]:
    for epoch in sorted(trial.intermediate_values):
        yield [trial.number, epoch, trial.intermediate_values[epoch]]


def _utc(local: datetime | None) -> str | None:
    """Return a time of Optuna's, which is local and has no zone, in UTC."""
    return None if local is None else local.astimezone(UTC).isoformat(timespec="seconds")


def _to_csv(table: Table) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return file.getvalue().encode()


def _to_json(table: Table) -> bytes:
    rows = [dict(zip(table.columns, map(_finite, row), strict=True)) for row in table.rows]
    return (json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _finite(cell: Cell) -> Cell:
    """Return a cell, or None for a number that JSON does not have."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _to_parquet(table: Table) -> bytes:
    try:
        data: bytes = to_data_frame(table).to_parquet(index=False)
    except ImportError:
        raise MiiiiSearchError(
            "a Parquet file needs pandas and pyarrow: pip install pandas pyarrow; or choose --format csv"
        ) from None
    return data


_WRITERS: dict[str, Callable[[Table], bytes]] = {"csv": _to_csv, "json": _to_json, "parquet": _to_parquet}
