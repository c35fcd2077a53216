"""Records made by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from miiii_search.analysis.milestones import find_milestones
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment

MIIII = Experiment(p=7)  # q = 2, 3, 5


def record(train: Sequence[Sequence[float]], validation: Sequence[Sequence[float]]) -> Record:
    """Return a record of accuracies, one list per task, with an evaluation every ten epochs."""
    t, v = (np.array(of, np.float32).T for of in (train, validation))
    norms = np.ones((len(t), 9), np.float32)
    return Record(10 * np.arange(1, len(t) + 1, dtype=np.int32), 1 - t, t, 1 - v, v, norms, norms)


def test_streaks_spikes_and_ties() -> None:
    train = [[0.5, 1, 1, 1, 1, 1, 1, 1], [0, 0.5, 1, 1, 1, 1, 1, 1], [1.0] * 8]
    validation = [
        [0.5, 0.5, 0.5, 0.5, 0.99, 1, 1, 1],  # at 50
        [1, 0.3, 1, 1, 0.98, 1, 1, 1],  # two spikes, then at 60
        [0.2, 0.2, 0.2, 0.2, 1, 1, 1, 0],  # at 50 too, though it fell later
    ]
    found = find_milestones(MIIII, record(train, validation))
    assert found.memorised == {2: 20, 3: 30, 5: 10}
    assert found.generalised == {2: 50, 3: 60, 5: 50}
    assert found.order == [2, 5, 3]
    assert found.delay == {2: 30, 3: 30, 5: 40}


def test_never_and_only_at_the_end() -> None:
    train = [[1.0] * 5, [0.9] * 5, [1.0] * 5]
    validation = [[0.0, 0, 0, 1, 1], [0.0, 0, 1, 1, 1], [0.98] * 5]
    found = find_milestones(MIIII, record(train, validation))
    assert found.memorised == {2: 10, 3: None, 5: 10}
    assert found.generalised == {2: None, 3: 30, 5: None}
    assert found.order == [3]
    assert found.delay == {}


def test_validation_before_training() -> None:
    train = [[0.5, 0.9, 0.9, 1, 1, 1]] * 3
    validation = [[0.5, 1, 1, 1, 1, 1]] * 3
    assert find_milestones(MIIII, record(train, validation)).delay == {2: -20, 3: -20, 5: -20}


@pytest.mark.parametrize("evaluations", [0, 1, 2])
def test_too_few_evaluations(evaluations: int) -> None:
    short = record([[1.0] * 5] * 3, [[1.0] * 5] * 3).rows(slice(0, evaluations))
    found = find_milestones(MIIII, short)
    assert found.memorised == found.generalised == {2: None, 3: None, 5: None}
    assert found.order == []
