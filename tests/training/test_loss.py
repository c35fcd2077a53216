"""The weighted cross-entropy and its float32 gradient, compared with exact arithmetic."""

from decimal import Decimal, localcontext
from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from miiii_search.experiment.spec import Experiment
from miiii_search.training.loss import evaluate, task_slices, task_weights, weighted_loss

Array = jax.Array
Floats = NDArray[np.float64]

MODULI = (2, 3, 7, 31)
N_SAMPLES = 4


def make_logits(
    lead: float, levels: tuple[float, ...] = (0, 0, 0, 0), seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return logits whose correct class exceeds all others of its task by `lead`. Each task has its own level."""
    rng = np.random.default_rng(seed)
    y = np.stack([rng.integers(0, q, N_SAMPLES) for q in MODULI], axis=1).astype(np.int32)
    parts = []
    for task, (q, level) in enumerate(zip(MODULI, levels, strict=True)):
        part = level + rng.uniform(-3, 0, (N_SAMPLES, q))
        rows = np.arange(N_SAMPLES)
        part[rows, y[:, task]] = -np.inf
        part[rows, y[:, task]] = part.max(axis=1) + lead
        parts.append(part)
    return np.concatenate(parts, axis=1).astype(np.float32), y


def exact(logits: NDArray[np.float32], y: NDArray[np.int32]) -> tuple[float, Floats]:
    """Return Σ_q CE_q / ln q and its gradient in 60 digits. Even float64 cancels if the label leads by 60."""
    gradient = np.zeros(logits.shape)
    with localcontext(prec=60):
        loss = Decimal(0)
        for sample, row in enumerate(logits):
            start = 0
            for task, q in enumerate(MODULI):
                weight = 1 / Decimal(q).ln() / len(logits)
                label = int(y[sample, task])
                exponentials = [Decimal(float(logit)).exp() for logit in row[start : start + q]]
                total = sum(exponentials)
                loss -= weight * (exponentials[label] / total).ln()
                for k, exponential in enumerate(exponentials):
                    gradient[sample, start + k] = float(weight * (exponential / total - (k == label)))
                start += q
        return float(loss), gradient


def loss_of(logits: Array, y: Array) -> Array:
    return weighted_loss(logits.T, y, task_weights(MODULI, (True,) * len(MODULI)), MODULI)[0]


def naive_loss(logits: Array, y: Array) -> Array:
    total = jnp.zeros(())
    for task, columns in enumerate(task_slices(MODULI)):
        log_probabilities = jax.nn.log_softmax(logits[:, columns])
        of_labels = jnp.take_along_axis(log_probabilities, y[:, task, None], axis=-1)
        total -= of_labels.mean() / log(MODULI[task])
    return total


def relative_error(actual: Array, expected: Floats) -> float:
    """Return the largest relative error of all entries."""
    assert (expected != 0).all()
    return float(np.max(np.abs(np.asarray(actual, np.float64) - expected) / np.abs(expected)))


value_and_gradient = jax.jit(jax.value_and_grad(loss_of))
naive_gradient = jax.jit(jax.grad(naive_loss))
jit_evaluate = jax.jit(evaluate, static_argnums=2)


@pytest.mark.parametrize("lead", [-20, -1, 0.001, 5, 15, 30, 60])
def test_every_entry_of_the_gradient(lead: float) -> None:
    logits, y = make_logits(lead)
    value, gradient = value_and_gradient(logits, y)
    expected_value, expected = exact(logits, y)
    assert gradient.dtype == jnp.float32
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    assert relative_error(gradient, expected) <= 1e-5


@pytest.mark.parametrize("lead", [30, 60])
def test_the_naive_gradient_loses_everything(lead: float) -> None:
    """The test above detects the plain formula: its softmax − onehot is exactly zero at the label."""
    logits, y = make_logits(lead)
    gradient = naive_gradient(logits, y)
    _, expected = exact(logits, y)
    assert relative_error(gradient, expected) >= 1
    starts = [columns.start for columns in task_slices(MODULI)]
    at_labels = np.asarray(gradient)[np.arange(N_SAMPLES)[:, None], y + starts]
    assert (at_labels == 0).all()


@pytest.mark.parametrize("lead", [-20, 5, 60])
def test_tasks_that_drift_apart(lead: float) -> None:
    logits, y = make_logits(lead, levels=(0, 200, -200, 1000))
    value, gradient = value_and_gradient(logits, y)
    expected_value, expected = exact(logits, y)
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    assert relative_error(gradient, expected) <= 1e-5


@settings(deadline=None)
@given(st.floats(-80, 80), st.lists(st.floats(-300, 300), min_size=4, max_size=4), st.integers(0, 2**31))
def test_the_gradient_at_any_lead_and_level(lead: float, levels: list[float], seed: int) -> None:
    logits, y = make_logits(lead, tuple(levels), seed)
    value, gradient = value_and_gradient(logits, y)
    expected_value, expected = exact(logits, y)
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    assert relative_error(gradient, expected) <= 1e-5


def test_the_incoming_gradient_scales_each_task() -> None:
    logits, y = make_logits(1)
    weights = jnp.asarray([1.0, 0.0, 2.5, -3.0])
    gradient = jax.jit(jax.grad(lambda z: 3 * weighted_loss(z.T, jnp.asarray(y), weights, MODULI)[0]))(logits)
    _, expected = exact(logits, y)
    for task, columns in enumerate(task_slices(MODULI)):
        factor = 3 * float(weights[task]) * log(MODULI[task])
        np.testing.assert_allclose(gradient[:, columns], factor * expected[:, columns], rtol=1e-5)


def test_the_mean_over_the_batch() -> None:
    logits, y = make_logits(1)
    value, gradient = value_and_gradient(logits, y)
    singly = [value_and_gradient(logits[k : k + 1], y[k : k + 1]) for k in range(N_SAMPLES)]
    assert float(value) == pytest.approx(np.mean([float(one) for one, _ in singly]), rel=1e-5)
    stacked = np.concatenate([of_one for _, of_one in singly])
    np.testing.assert_allclose(gradient, stacked / N_SAMPLES, rtol=1e-5)


def test_a_uniform_guess_costs_one_a_task() -> None:
    logits, y = jnp.full((N_SAMPLES, sum(MODULI)), 3.0), jnp.zeros((N_SAMPLES, len(MODULI)), jnp.int32)
    assert float(value_and_gradient(logits, y)[0]) == pytest.approx(len(MODULI), rel=1e-5)


def test_weights_are_the_inverse_of_a_uniform_guess() -> None:
    experiment = Experiment()
    weights = np.asarray(task_weights(experiment.task_moduli, experiment.scored))
    np.testing.assert_allclose(weights, [1 / log(q) for q in experiment.task_moduli], rtol=1e-6)


@pytest.mark.parametrize("task", ["miiii", "masked", "nanda"])
def test_a_mean_counts_every_task(task: str) -> None:
    experiment = Experiment(task=task)
    total = np.asarray(task_weights(experiment.task_moduli, experiment.scored))
    mean = np.asarray(task_weights(experiment.task_moduli, experiment.scored, "mean"))
    # The mean also counts tasks that are not scored, as in the public code, which sets their weights to 0.
    np.testing.assert_allclose(mean * {"miiii": 29, "masked": 29, "nanda": 1}[task], total, rtol=1e-6)


def test_slices_lie_side_by_side() -> None:
    slices = task_slices(Experiment().task_moduli)
    assert [k for columns in slices for k in range(columns.start, columns.stop)] == list(range(1480))
    assert [columns.stop - columns.start for columns in slices] == list(Experiment().task_moduli)


def test_masked_tasks_move_nothing() -> None:
    experiment = Experiment(p=17, task="masked")
    moduli = experiment.task_moduli
    weights = task_weights(moduli, experiment.scored)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(8, sum(moduli))), jnp.float32)
    y = jnp.asarray(np.stack([rng.integers(0, q, 8) for q in moduli], axis=1), jnp.int32)
    gradient = jax.jit(jax.grad(lambda z: weighted_loss(z.T, y, weights, moduli)[0]))(logits)
    for q, columns in zip(moduli, task_slices(moduli), strict=True):
        if q in (2, 3, 5, 7):
            assert (gradient[:, columns] == 0).all()
        else:
            assert (gradient[:, columns] != 0).all()


def test_accuracy_is_that_of_the_largest_logit() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(500, sum(MODULI))).astype(np.float32)
    y = np.stack([rng.integers(0, q, 500) for q in MODULI], axis=1).astype(np.int32)
    losses, accuracies = jit_evaluate(jnp.asarray(logits.T), jnp.asarray(y), MODULI)
    start = 0
    for task, q in enumerate(MODULI):
        part = logits[:, start : start + q].astype(np.float64)
        assert float(accuracies[task]) == pytest.approx(np.mean(part.argmax(axis=1) == y[:, task]), rel=1e-6)
        cross_entropy = np.log(np.exp(part).sum(axis=1)) - part[np.arange(500), y[:, task]]
        assert float(losses[task]) == pytest.approx(cross_entropy.mean(), rel=1e-5)
        start += q


@pytest.mark.parametrize("logit", [0.0, 5.0, np.inf, np.nan])
def test_a_network_that_has_died_knows_nothing(logit: float) -> None:
    logits = jnp.full((sum(MODULI), 10), logit, jnp.float32)
    _, accuracies = jit_evaluate(logits, jnp.zeros((10, len(MODULI)), jnp.int32), MODULI)
    assert (accuracies == 0).all()


@pytest.mark.parametrize("n", [41, 47, 165, 235, 1000])
def test_all_right_is_exactly_one(n: int) -> None:
    """XLA divides by multiplying with 1/n, so a plain mean of n ones is below 1 for most of these n."""
    logits = np.zeros((sum(MODULI), n), np.float32)
    logits[[rows.start for rows in task_slices(MODULI)]] = 1
    y = np.zeros((n, len(MODULI)), np.int32)
    y[:, 1], y[0, 2] = 1, 1
    _, accuracies = jit_evaluate(jnp.asarray(logits), jnp.asarray(y), MODULI)
    assert accuracies[0] == 1
    assert accuracies[1] == 0
    assert float(accuracies[2]) == pytest.approx((n - 1) / n, rel=1e-6)
    if n < 1000:
        assert jax.jit(lambda hits: hits.mean(0))(np.ones((n, 1), bool))[0] < 1
