"""Accuracies and losses against SciPy, and against what training measured."""

import numpy as np
import pytest
import scipy.special

from miiii_search.analysis.scores import accuracies, grid_labels, losses, training_mask
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.tasks import make_splits


@pytest.mark.parametrize("task", ["miiii", "nanda", "basis", "masked"])
def test_labels_on_the_grid(task: str) -> None:
    experiment = Experiment(p=13, task=task)
    y, trained, splits = grid_labels(experiment), training_mask(experiment), make_splits(experiment)
    for split in (splits.train, splits.validation, splits.test):
        for (x0, x1), of_sample in zip(split.x, split.y, strict=True):
            assert y[:, x0, x1].tolist() == of_sample.tolist()
            assert trained[x0, x1] == (split is splits.train)
    if task == "miiii":
        assert y[0, 3, 2] == (3 + 2 * 13) % 2 and y[4, 12, 5] == (12 + 5 * 13) % 11
    if task == "nanda":
        assert y[0, 7, 9] == 3


def test_scores_task_by_task() -> None:
    random, moduli = np.random.default_rng(0), (2, 3, 5)
    logits = random.normal(size=(10, 40)).astype(np.float32)
    y = np.stack([random.integers(q, size=40) for q in moduli])
    for task, rows in enumerate(([0, 1], [2, 3, 4], [5, 6, 7, 8, 9])):
        log_probabilities = scipy.special.log_softmax(logits[rows].astype(np.float64), axis=0)
        expected = -log_probabilities[y[task], np.arange(40)].mean()
        assert losses(logits, y, moduli)[task] == pytest.approx(expected, rel=1e-12)
        assert accuracies(logits, y, moduli)[task] == np.mean(logits[rows].argmax(axis=0) == y[task])


def test_a_tie_and_a_number_that_is_none_are_wrong() -> None:
    logits = np.array([[1.0, 1, np.nan], [1, 0, 0]])
    assert accuracies(logits, np.array([[0, 0, 1]]), (2,)).tolist() == [1 / 3]


def test_logits_beyond_the_range_of_exp() -> None:
    assert losses(np.array([[1e4], [0.0]]), np.array([[1]]), (2,)).tolist() == [1e4]
