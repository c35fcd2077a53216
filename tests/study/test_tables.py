"""Tables of a study, read back by other programs."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.database import open_database
from miiii_search.study import tables
from miiii_search.study.create import create_study
from miiii_search.study.study import Study
from miiii_search.study.tables import Table, read_table, to_data_frame, write_table
from tests.support import claim, end, make_spec, metrics_of, with_all


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    database = open_database(f"sqlite:///{tmp_path}/test.db", create=True)
    yield create_study(database, "study", make_spec())
    database.close()


@pytest.fixture
def nine_hours_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time of UTC+9. Optuna returns local times without a zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("nine_hours_east")
def test_times_are_in_utc(study: Study) -> None:
    end(study, claim(study))
    [first, *_] = json.loads(write_table(read_table(study, "trials"), "json"))
    for name in ("started_at", "ended_at"):
        assert abs((datetime.fromisoformat(first[name]) - datetime.now(UTC)).total_seconds()) < 3600


def test_every_trial_has_a_row(study: Study) -> None:
    lease = claim(study)
    end(study, lease, value=1.25, seed=3, epochs_trained=40, epochs_to_solve=24)
    frame = to_data_frame(read_table(study, "trials"))
    assert len(frame) == len(study.trials())
    first, second = frame.iloc[0], frame.iloc[1]
    [trial, *_] = study.trials()
    assert (first.number, first.state, first.value, first.seed) == (0, "complete", 1.25, 3)
    assert (first.epochs_trained, first.epochs_to_solve, first.training_seconds) == (40, 24, 1.5)
    assert (first.worker, first.device, first.retries, first.replicate) == ("worker", "cpu", 0, 0)
    assert {name: first[f"params_{name}"] for name in study.spec.space} == trial.params
    assert trial.datetime_start is not None and trial.datetime_complete is not None
    began = trial.datetime_start.astimezone(UTC)
    assert first.started_at == pd.Timestamp(began).floor("s")
    assert first.duration == (trial.datetime_complete - trial.datetime_start).total_seconds() >= 0
    assert abs((first.ended_at.to_pydatetime() - datetime.now(UTC)).total_seconds()) < 3600
    assert second.state == "waiting" and pd.isna(second.value) and pd.isna(second.ended_at)


def test_tasks_and_curves(study: Study) -> None:
    with_all(study)
    tasks, curves = (to_data_frame(read_table(study, kind)) for kind in ("tasks", "curves"))
    metrics = metrics_of(study)
    ended = [t.number for t in study.trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert tasks["number"].tolist() == [number for number in ended for _ in metrics["moduli"]]
    assert tasks["modulus"].tolist() == metrics["moduli"] * 2
    for name in tasks.columns[2:]:
        assert tasks[name].tolist() == metrics[name] * 2
    reports = [(t.number, e, v) for t in study.trials() for e, v in sorted(t.intermediate_values.items())]
    assert tuple(curves.iloc[0]) == reports[0] == (0, 4, 1 / 3)
    assert curves["epoch"].tolist() == [epoch for _, epoch, _ in reports]
    assert curves["validation_accuracy"].isna().sum() == sum(math.isnan(value) for *_, value in reports) == 1


@pytest.mark.parametrize("kind", tables.TABLE_KINDS)
def test_all_formats_hold_the_same(study: Study, kind: tables.TableKind) -> None:
    """A text with quotes, commas and line breaks is still one cell, and JSON has no number that is not finite."""
    with_all(study)
    table = read_table(study, kind)
    header, *rows = csv.reader(io.StringIO(write_table(table, "csv").decode(), newline=""))
    assert header == table.columns
    assert rows == [["" if cell is None else str(cell) for cell in row] for row in table.rows]

    def refuse(text: str) -> None:
        raise AssertionError(text)

    read = json.loads(write_table(table, "json"), parse_constant=refuse)
    for found, row in zip(read, table.rows, strict=True):
        finite = [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row]
        assert list(found) == table.columns and list(found.values()) == finite


def test_quotes_and_lines_in_a_cell() -> None:
    table = Table(["a", "b"], [['x,"y"\nz', None], ["é", 0.1 + 0.2]])
    assert list(csv.reader(io.StringIO(write_table(table, "csv").decode(), newline="")))[1:] == [
        ['x,"y"\nz', ""],
        ["é", "0.30000000000000004"],
    ]


def test_parquet_needs_a_library_that_may_be_absent(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_table(study, "trials")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "fastparquet", None)
    with pytest.raises(MiiiiSearchError, match="pip install pandas pyarrow"):
        write_table(table, "parquet")
