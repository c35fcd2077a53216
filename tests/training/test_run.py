"""A single run: a part of it equals the beginning of the whole."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from miiii_search.experiment.metrics import hash_weights
from miiii_search.experiment.record import Record, WeightSnapshot
from miiii_search.experiment.spec import Experiment
from miiii_search.training.run import TrainingResult, train
from tests.training.small import NARROW

LONG = Experiment(p=11, task="nanda", train_fraction=0.5, epochs=600, evaluate_every=8, solved_evaluations=1000)
"""A run with snapshots at epochs 256 and 512 and at its end. It is never solved."""
DROPPING = NARROW.model_copy(update={"dropout": 0.2})


def trained(until: int | None = None, **arguments: Any) -> tuple[TrainingResult, dict[int, WeightSnapshot]]:
    """Return the result of the run and its snapshots by epoch."""
    snapshots: list[WeightSnapshot] = []
    result = train(LONG, DROPPING, on_snapshot=snapshots.append, until=until, **arguments)
    found = {snapshot.epoch: snapshot for snapshot in snapshots}
    assert len(found) == len(snapshots)
    return result, found


@pytest.fixture(scope="module")
def whole() -> tuple[TrainingResult, dict[int, WeightSnapshot]]:
    result, snapshots = trained()
    assert result.progress.ended and list(snapshots) == [256, 512, 600]
    assert hash_weights(snapshots[600].weights) == hash_weights(result.weights) == result.metrics.weights_sha256
    return result, snapshots


def same(one: WeightSnapshot, other: WeightSnapshot) -> bool:
    return hash_weights(one.weights) == hash_weights(other.weights) and bool((one.spectrum == other.spectrum).all())


def assert_begins(part: TrainingResult, whole: TrainingResult) -> None:
    """The part's record is the beginning of the whole's, bit for bit."""
    for field in fields(Record):
        ours, theirs = getattr(part.record, field.name), getattr(whole.record, field.name)
        np.testing.assert_array_equal(ours, theirs[: len(ours)])
    assert part.metrics.epochs_trained == part.progress.epoch == part.record.epoch[-1]
    assert part.metrics.validation_accuracy == tuple(map(float, whole.record.validation_accuracy[len(part.record) - 1]))


@pytest.mark.slow
@pytest.mark.parametrize("until", [8, 256, 264, 512, 592])
def test_until_is_the_beginning_of_the_whole_run(
    whole: tuple[TrainingResult, dict[int, WeightSnapshot]], until: int
) -> None:
    part, snapshots = trained(until)
    assert not part.progress.ended and part.progress.epoch == until
    assert_begins(part, whole[0])
    # At the epochs of the whole run's snapshots, and at the end.
    assert list(snapshots) == sorted({epoch for epoch in (256, 512) if epoch <= until} | {until})
    for epoch in snapshots.keys() & whole[1].keys():
        assert same(snapshots[epoch], whole[1][epoch])
    assert hash_weights(snapshots[until].weights) == part.metrics.weights_sha256


@pytest.mark.parametrize("until", [600, 10_000])
def test_until_the_end(whole: tuple[TrainingResult, dict[int, WeightSnapshot]], until: int) -> None:
    part, snapshots = trained(until)
    assert part.metrics == whole[0].metrics and part.progress.ended
    assert list(snapshots) == list(whole[1])


@pytest.mark.parametrize("until", [0, -8, 3, 257])
def test_until_is_an_evaluation(until: int) -> None:
    with pytest.raises(ValueError, match=f"until must be a multiple of 8, .* but is {until}"):
        trained(until)


def test_a_run_that_is_stopped(whole: tuple[TrainingResult, dict[int, WeightSnapshot]]) -> None:
    """The run ends after the current chunk, at the earliest after one evaluation."""
    part, snapshots = trained(stop=lambda: True)
    assert part.progress.epoch == 8 and not part.progress.ended and snapshots == {}
    assert_begins(part, whole[0])
    seen: list[int] = []
    part, snapshots = trained(
        on_progress=lambda progress, new: seen.append(progress.epoch), stop=lambda: seen[-1] >= 300
    )
    assert part.progress.epoch == seen[-1] >= 300 and not part.progress.ended
    assert_begins(part, whole[0])
    assert 256 in snapshots and same(snapshots[256], whole[1][256])
