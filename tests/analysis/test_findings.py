"""Findings of complete and of incomplete runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miiii_search.analysis.findings import analyze
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.record import Record, WeightSnapshot, find_snapshots, write_snapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters
from tests.analysis.networks import random_weights

HYPERPARAMETERS = Hyperparameters(d_model=16, n_heads=2)


def make_run(experiment: Experiment, folder: Path, **parts: Any) -> TrainedRun:
    """Return a run with snapshots at 256 and 512 and at the end, which is epoch 600."""
    weights = dict(random_weights(experiment.p, 16, 2, sum(experiment.task_moduli)))
    spectrum = np.ones((experiment.p, experiment.p // 2 + 1), np.float32)
    for epoch in (256, 512, 600):
        write_snapshot(folder, WeightSnapshot(epoch, spectrum, weights))
    ones = np.ones((60, len(experiment.task_moduli)), np.float32)
    norms = np.ones((60, 9), np.float32)
    record = Record(10 * np.arange(1, 61, dtype=np.int32), ones, ones, ones, ones, norms, norms)
    whole: dict[str, Any] = {
        "record": record,
        "spectra": {256: spectrum},
        "weights": weights,
        "snapshots": find_snapshots(folder),
    }
    return TrainedRun("a run", experiment, HYPERPARAMETERS, **(whole | parts))


@pytest.mark.parametrize("p", [5, 7, 13])
@pytest.mark.parametrize("task", ["miiii", "nanda", "basis", "masked"])
def test_any_task_at_small_primes(p: int, task: str, tmp_path: Path) -> None:
    if task == "masked" and p <= 11:
        return
    experiment, steps = Experiment(p=p, task=task), list[str]()
    found = analyze(make_run(experiment, tmp_path), steps.append)
    assert found.missing == []
    assert found.network is not None and found.network.activations.logits.shape == (sum(experiment.task_moduli), p * p)
    # The snapshot at the end has the final weights, which are not analyzed twice.
    assert [a.epoch for a in found.ablations] == [256, 512, 600]
    assert steps == ["embeddings and neurons", *(f"circuits at epoch {e}" for e in (256, 512, 600))]
    assert [m.epoch for m in found.progress] == ([256, 512, 600] if task == "nanda" else [])
    assert bool(found.key_frequencies) == (task == "nanda")
    assert found.milestones is not None and found.milestones.order == list(experiment.task_moduli)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    experiment = Experiment(p=7)
    nothing = analyze(make_run(experiment, tmp_path, record=None, spectra={}, weights=None))
    assert (nothing.milestones, nothing.activity, nothing.network) == (None, None, None)
    assert [line.partition(":")[0] for line in nothing.missing] == [
        "no record of training",
        "no spectra (recorded from epoch 256 on)",
        "no weights",
    ]
    weights_alone = analyze(make_run(experiment, tmp_path, record=None, spectra={}, snapshots={}))
    assert weights_alone.network is not None
    assert [a.epoch for a in weights_alone.ablations] == [experiment.epochs]
    assert weights_alone.missing[-1].startswith("no snapshots of the weights")
    empty = make_run(experiment, tmp_path).record
    assert empty is not None
    assert analyze(make_run(experiment, tmp_path, record=empty.rows(slice(0, 0)))).milestones is None


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = make_run(Experiment(p=7), tmp_path)
    assert run.weights is not None and list(run.snapshots) == [256, 512, 600]
    read = run.read_snapshot(512)
    assert read.keys() == run.weights.keys()
    for name in read:
        np.testing.assert_array_equal(read[name], run.weights[name])
