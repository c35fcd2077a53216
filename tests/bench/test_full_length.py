"""Full-length runs trained in pieces, the small files of their records, and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from full_length_report import FIGURE_6, MAX_ROWS, PackedRun, figures, pack, packed_runs, report, rows_to_keep
from full_length_runs import FullLengthRun, last_epoch, read_state, runs, train

from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.runs.run_folder import RECORD, read_run

pytestmark = pytest.mark.slow

TINY = FullLengthRun(
    "a claim",
    Experiment(p=11, epochs=512, validation_samples=20, solved_evaluations=1000),
    Hyperparameters(d_model=16, n_heads=2, learning_rate=1e-3),
)


def make_run(name: str, accuracy: float, epochs: int = 65536) -> PackedRun:
    experiment = runs()["authors-code"].experiment
    epoch = np.arange(16, epochs + 1, 16, dtype=np.int32)
    tasks, none = np.full((len(epoch), 29), accuracy, np.float32), np.zeros((len(epoch), 9), np.float32)
    about = {"claim": "", "ended": True, "solved_epoch": None, "milestones": {}, "seconds": 1.0}
    return PackedRun(
        name, about, experiment, Hyperparameters(), Record(epoch, tasks, tasks, tasks, tasks, none, none), {}
    )


def test_a_run_that_is_stopped_on_the_way_is_the_same_run(tmp_path: Path) -> None:
    train("tiny", TINY, tmp_path / "whole", lambda: False)
    for n in (1, 3, 1000):  # chunks of the run until it is stopped
        stops = iter([False] * (n - 1) + [True])
        train("tiny", TINY, tmp_path / "pieces", lambda stops=stops: next(stops, True))  # type: ignore[misc]
        state = read_state(tmp_path / "pieces" / "tiny")
        assert state is not None and state["ended"] == (n == 1000)
    (whole, problems), (pieces, more) = (read_run(tmp_path / name / "tiny") for name in ("whole", "pieces"))
    assert problems == more == []
    assert whole.metrics is not None and whole.metrics == pieces.metrics  # with the digest of all weights
    assert whole.record is not None and pieces.record is not None
    np.testing.assert_array_equal(whole.record.validation_loss, pieces.record.validation_loss)
    assert list(whole.spectra) == list(pieces.spectra) == [256, 512]
    assert list(whole.snapshots) == list(pieces.snapshots) == [256, 512]


def test_a_run_may_end_where_another_was_solved(tmp_path: Path) -> None:
    follower = FullLengthRun("", TINY.experiment, TINY.hyperparameters, until="leader")
    assert last_epoch(follower, tmp_path) == 512
    (tmp_path / "leader").mkdir()
    (tmp_path / "leader" / "state.json").write_text(json.dumps({"solved_epoch": 128}))
    assert last_epoch(follower, tmp_path) == 128
    train("follower", follower, tmp_path, lambda: False)
    state = read_state(tmp_path / "follower")
    assert state is not None and (state["epoch"], state["ended"]) == (128, True)


def test_a_packed_run_is_the_run_but_for_rounding(tmp_path: Path) -> None:
    train("tiny", TINY, tmp_path, lambda: False)
    pack(tmp_path, ["tiny", "not-begun"], tmp_path / "packed")
    [run] = packed_runs(["tiny", "not-begun"], tmp_path / "packed")
    original = Record.from_npz((tmp_path / "tiny" / RECORD).read_bytes())
    assert (run.experiment, run.hyperparameters) == (TINY.experiment, TINY.hyperparameters)
    np.testing.assert_array_equal(run.record.epoch, original.epoch)
    np.testing.assert_allclose(run.record.validation_loss, original.validation_loss, rtol=2**-12)
    assert list(run.spectra) == [256, 512]
    found = report(["tiny"], packed=tmp_path / "packed")["tiny"]
    assert (found["epochs"], found["ended"]) == (512, True)
    assert found["tasks_at_099"] == int((original.validation_accuracy[-1] >= 0.99).sum())
    assert "train_at" not in found  # it does not come to the first epoch of Figure 6


def test_rows_are_few_and_hold_both_ends() -> None:
    epochs = np.arange(16, 65537, 16, dtype=np.int32)
    kept = rows_to_keep(epochs)
    assert len(kept) <= MAX_ROWS and len(set(kept)) == len(kept)
    assert (epochs[kept[0]], epochs[kept[-1]]) == (16, 65536)
    late = epochs[kept][epochs[kept] > 8192]
    assert np.all(np.diff(late) / late[:-1] < 0.03)  # so that five per cent around any epoch hold one
    assert rows_to_keep(epochs[:100]).tolist() == list(range(100))


def test_differences_are_those_from_figure_6() -> None:
    found = figures(make_run("authors-code", 0.5))
    assert found["train_at"] == {str(epoch): pytest.approx(0.5) for epoch in FIGURE_6["epoch"]}
    early = [mean for epoch, mean in zip(FIGURE_6["epoch"], FIGURE_6["training"], strict=True) if epoch <= 20_000]
    assert found["max_train_difference"] == pytest.approx(max(abs(mean - 0.5) for mean in early))
    assert "max_train_difference" not in figures(make_run("table-2", 0.5))
    assert set(figures(make_run("table-2", 0.01, 4096))["validation_at"].values()) == {0.05}  # clipped as in the figure


def test_the_runs_are_those_of_the_paper() -> None:
    known = runs()
    assert list(known)[:7] == [
        "authors-code",
        "table-2",
        "table-2-public-init",
        "lambda-0",
        "dropout-0",
        "masked",
        "basis",
    ]
    authors = known["authors-code"]
    assert known["lambda-0"].hyperparameters.grokfast_lambda == 0 == known["dropout-0"].hyperparameters.dropout
    assert (known["dropout-0"].until, known["basis"].until, known["masked"].until) == (20_000, 8192, "authors-code")
    assert all(known[name].experiment == authors.experiment for name in ("lambda-0", "dropout-0"))
    assert known["masked"].experiment == authors.experiment.model_copy(update={"task": "masked"})
    assert (known["table-2"].experiment.train_fraction, known["table-2"].experiment.initialisation) == (0.3, "he")
