"""One run by itself: a part of it is the same as the beginning of the whole."""

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
"""Its looks are at 256 and 512, and at its end; never solved."""
DROPPING = NARROW.model_copy(update={"dropout": 0.2})


def trained(until: int | None = None, **arguments: Any) -> tuple[TrainingResult, dict[int, WeightSnapshot]]:
    """The run, and its looks by epoch."""
    looks: list[WeightSnapshot] = []
    result = train(LONG, DROPPING, on_snapshot=looks.append, until=until, **arguments)
    found = {look.epoch: look for look in looks}
    assert len(found) == len(looks)
    return result, found


@pytest.fixture(scope="module")
def whole() -> tuple[TrainingResult, dict[int, WeightSnapshot]]:
    result, looks = trained()
    assert result.progress.ended and list(looks) == [256, 512, 600]
    assert hash_weights(looks[600].weights) == hash_weights(result.weights) == result.metrics.weights_sha256
    return result, looks


def same(one: WeightSnapshot, other: WeightSnapshot) -> bool:
    return hash_weights(one.weights) == hash_weights(other.weights) and bool((one.spectrum == other.spectrum).all())


def assert_begins(part: TrainingResult, whole: TrainingResult) -> None:
    """The part's record is the beginning of the whole's, bit for bit."""
    for field in fields(Record):
        ours, theirs = getattr(part.record, field.name), getattr(whole.record, field.name)
        np.testing.assert_array_equal(ours, theirs[: len(ours)])
    assert part.metrics.epochs_trained == part.progress.epoch == part.record.epoch[-1]
    assert part.metrics.validation_accuracy == tuple(map(float, whole.record.validation_accuracy[len(part.record) - 1]))


@pytest.mark.parametrize("until", [8, 256, 264, 512, 592])
def test_until_is_the_beginning_of_the_whole_run(
    whole: tuple[TrainingResult, dict[int, WeightSnapshot]], until: int
) -> None:
    part, looks = trained(until)
    assert not part.progress.ended and part.progress.epoch == until
    assert_begins(part, whole[0])
    # At the epochs at which the whole run is looked at, and at the end.
    assert list(looks) == sorted({epoch for epoch in (256, 512) if epoch <= until} | {until})
    for epoch in looks.keys() & whole[1].keys():
        assert same(looks[epoch], whole[1][epoch])
    assert hash_weights(looks[until].weights) == part.metrics.weights_sha256


@pytest.mark.parametrize("until", [600, 10_000])
def test_until_the_end(whole: tuple[TrainingResult, dict[int, WeightSnapshot]], until: int) -> None:
    part, looks = trained(until)
    assert part.metrics == whole[0].metrics and part.progress.ended
    assert list(looks) == list(whole[1])


@pytest.mark.parametrize("until", [0, -8, 3, 257])
def test_until_is_an_evaluation(until: int) -> None:
    with pytest.raises(ValueError, match=f"until must be a multiple of 8, .* but is {until}"):
        trained(until)


def test_a_run_that_is_stopped(whole: tuple[TrainingResult, dict[int, WeightSnapshot]]) -> None:
    """It ends at the next chunk, with what was trained by then; at the soonest after one evaluation."""
    part, looks = trained(stop=lambda: True)
    assert part.progress.epoch == 8 and not part.progress.ended and looks == {}
    assert_begins(part, whole[0])
    seen: list[int] = []
    part, looks = trained(on_progress=lambda progress, new: seen.append(progress.epoch), stop=lambda: seen[-1] >= 300)
    assert part.progress.epoch == seen[-1] >= 300 and not part.progress.ended
    assert_begins(part, whole[0])
    assert 256 in looks and same(looks[256], whole[1][256])
