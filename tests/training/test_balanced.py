"""The loss and the accuracy for rare classes, against their definitions in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from miiii_search.analysis import scores
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.tasks import class_shares, guessing_losses, labels
from miiii_search.training.balanced import BalancedLoss, balanced_accuracy
from miiii_search.training.lane_functions import LaneFunctions
from miiii_search.training.loss import task_slices

EXPERIMENT = Experiment(p=11, task="divisible")
CLASSES = (2, 2, 2, 2)


def random_logits(n: int, scale: float = 1.0) -> NDArray[np.float64]:
    return scale * np.random.default_rng(0).normal(size=(sum(CLASSES), n)).astype(np.float32).astype(np.float64)


def adjusted_cross_entropy(logits: NDArray[np.float64], y: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return equation 10 of Menon et al. with τ = 1, each sample by itself, averaged: `[tasks]`."""
    result = []
    for task, q in enumerate((2, 3, 5, 7)):
        multiples = sum(n % q == 0 for n in range(121))
        shares = [1 - multiples / 121, multiples / 121]
        of_samples = []
        for z0, z1, label in zip(*logits[2 * task : 2 * task + 2], y[:, task], strict=True):
            exponentials = [shares[0] * np.exp(z0), shares[1] * np.exp(z1)]
            of_samples.append(-np.log(exponentials[label] / sum(exponentials)))
        result.append(np.mean(of_samples))
    return np.asarray(result)


def test_shares_and_guessing_losses() -> None:
    assert class_shares(EXPERIMENT) == tuple(
        (1 - multiples / 121, multiples / 121) for multiples in (61, 41, 25, 18)
    )  # of 0 to 120; 0 counts
    entropies = [-(s * np.log(s) + (1 - s) * np.log(1 - s)) for s in (61 / 121, 41 / 121, 25 / 121, 18 / 121)]
    np.testing.assert_allclose(guessing_losses(EXPERIMENT), entropies, rtol=1e-12)
    assert guessing_losses(Experiment(p=11)).tolist() == np.log([2, 3, 5, 7]).tolist()
    assert class_shares(Experiment(p=11))[1] == (1 / 3, 1 / 3, 1 / 3)


def test_loss_and_gradient() -> None:
    y, weights = labels(EXPERIMENT), np.asarray([1.0, 0.5, 2.0, 3.0])
    logits = random_logits(len(y))
    loss = BalancedLoss(EXPERIMENT)

    def total(z: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return loss.weighted_loss(z, jnp.asarray(y), jnp.asarray(weights, jnp.float32), CLASSES)

    (value, (losses, _)), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(logits, jnp.float32))
    expected = adjusted_cross_entropy(logits, y)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(value, weights @ expected, rtol=1e-5)
    np.testing.assert_allclose(loss.evaluate(jnp.asarray(logits, jnp.float32), jnp.asarray(y), CLASSES)[0], expected)
    step = 1e-5
    for row, column in [(0, 0), (1, 7), (4, 60), (7, 0), (6, 119)]:
        nudged = logits.copy()
        nudged[row, column] += step
        difference = (weights @ adjusted_cross_entropy(nudged, y) - weights @ expected) / step
        assert float(gradient[row, column]) == pytest.approx(difference, rel=1e-3, abs=1e-7)


def test_every_weighted_loss_is_1_for_a_network_that_knows_nothing() -> None:
    functions = LaneFunctions(EXPERIMENT, 8, 2)
    assert functions.balanced is not None
    y = labels(EXPERIMENT)
    zeros = jnp.zeros((sum(CLASSES), len(y)))
    losses, accuracies = functions.balanced.evaluate(zeros, jnp.asarray(y), CLASSES)
    np.testing.assert_allclose(losses / np.log(2) * functions.balanced.relative_weights, np.ones(4), rtol=1e-6)
    assert accuracies.tolist() == [0, 0, 0, 0]  # ties count as wrong


def test_accuracy_is_the_mean_over_the_classes_that_occur() -> None:
    y, logits = labels(EXPERIMENT)[1:10], random_logits(9)  # 7 divides one of 1 to 9, and 3 three of them
    expected = []
    for task, rows in enumerate(task_slices(CLASSES)):
        right = np.argmax(logits[rows], axis=0) == y[:, task]
        expected.append(np.mean([right[y[:, task] == c].mean() for c in (0, 1) if (y[:, task] == c).any()]))
    found = balanced_accuracy(jnp.asarray(logits, jnp.float32), jnp.asarray(y), CLASSES)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(scores.accuracies(logits, y.T, CLASSES, balanced=True), expected, rtol=1e-12)
    assert len(set(expected)) > 1
    none_divides = labels(EXPERIMENT)[1:2]  # n = 1
    assert balanced_accuracy(jnp.asarray([[1.0], [0.0]] * 4), jnp.asarray(none_divides), CLASSES).tolist() == [1] * 4


def test_always_no_is_half_right_and_all_right_is_exactly_1() -> None:
    y = jnp.asarray(labels(EXPERIMENT))
    no = jnp.tile(jnp.asarray([[1.0], [0.0]]), (4, len(y)))
    assert balanced_accuracy(no, y, CLASSES).tolist() == [0.5] * 4
    right = jnp.concatenate([jnp.stack([1.0 - y[:, t], 1.0 * y[:, t]]) for t in range(4)])
    assert balanced_accuracy(right, y, CLASSES).tolist() == [1] * 4
