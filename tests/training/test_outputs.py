"""The options of the network's output, compared with their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.switches import PAPER, Switches
from miiii_search.experiment.tasks import make_splits
from miiii_search.training.lanes import Lanes
from miiii_search.training.loss import evaluate, weighted_loss
from miiii_search.training.outputs import log_stable, transform_logits
from miiii_search.training.program import ProgramKey
from tests.training import textbook
from tests.training.plain_optimizers import Floats, softmax_loss, stablemax_loss

MODULI = (2, 5, 7)
WEIGHTS = (1.0, 0.5, 2.0)


def slices(logits: Floats) -> list[Floats]:
    return np.split(logits, np.cumsum(MODULI)[:-1], axis=1)


def plain_loss(
    logits: Floats, y: np.ndarray[tuple[int, ...], np.dtype[np.int_]], output: str, temperature: float
) -> float:
    one = {"softmax": softmax_loss, "stablemax": stablemax_loss}[output]
    parts = slices(logits / temperature)
    return sum(w * one(part, y[:, k]) for k, (w, part) in enumerate(zip(WEIGHTS, parts, strict=True)))


@pytest.mark.parametrize("output", ["softmax", "stablemax"])
@pytest.mark.parametrize("temperature", [1.0, 0.25, 3.0])
def test_loss_and_gradient_are_those_of_the_definition(output: str, temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (6, sum(MODULI))).astype(np.float32).astype(np.float64)
    logits[0, 0] = logits[3, 5] = 0.0  # where the branches of StableMax meet
    y = np.stack([rng.integers(0, q, 6) for q in MODULI], axis=1)
    hyperparameters = Hyperparameters.model_validate({"output": output, "temperature": temperature})
    switches = Switches.of(hyperparameters)
    assert (switches == PAPER) == (output == "softmax" and temperature == 1)

    def loss(z: jax.Array) -> jax.Array:
        option_values = {name: jnp.float32(getattr(hyperparameters, name)) for name in switches.traced}
        transformed = transform_logits(z.T, switches, option_values)
        return weighted_loss(transformed, jnp.asarray(y), jnp.asarray(WEIGHTS, jnp.float32), MODULI)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.float32(logits))
    np.testing.assert_allclose(value, plain_loss(logits, y, output, temperature), rtol=1e-6)
    expected, step = np.zeros_like(logits), 1e-6
    for at in np.ndindex(logits.shape):
        for sign in (1, -1):
            moved = logits.copy()
            moved[at] += sign * step
            expected[at] += sign * plain_loss(moved, y, output, temperature) / (2 * step)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_stablemax_has_gradients_where_softmax_has_none() -> None:
    """A logit that is far below the largest one is lost in float32 with softmax, but not with StableMax."""
    z = jnp.asarray([[200.0], [-200.0]])
    y, one = jnp.zeros((1, 1), jnp.int32), jnp.ones(1)
    plain = jax.grad(lambda z: weighted_loss(z, y, one, (2,))[0])(z)
    stable = jax.grad(lambda z: weighted_loss(log_stable(z), y, one, (2,))[0])(z)
    assert not plain.any() and stable.all()


def test_accuracies_do_not_depend_on_the_output() -> None:
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(0, 3, (sum(MODULI), 50)), jnp.float32)
    y = jnp.asarray(np.stack([rng.integers(0, q, 50) for q in MODULI], axis=1))
    for one in (log_stable(logits), logits / 0.3):
        assert np.array_equal(evaluate(one, y, MODULI)[1], evaluate(logits, y, MODULI)[1])


def test_a_run_records_the_loss_that_it_trains() -> None:
    """The loss of the first epoch, the evaluations, and the final metrics have the temperature and the output."""
    experiment = Experiment(p=7, train_fraction=0.5, epochs=4, evaluate_every=1, validation_samples=12)
    hyperparameters = Hyperparameters(
        d_model=8, n_heads=2, dropout=0.0, learning_rate=1e-3, output="stablemax", temperature=0.5
    )
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters), batched=False)
    lane = lanes.admit(experiment, hyperparameters)
    before = lanes.weights(lane)
    record = lanes.train(1)[lane]
    after, final, splits = lanes.weights(lane), lanes.final_metrics(lane), make_splits(experiment)
    for weights, split, losses in [
        (before, splits.train, record.train_loss[0]),
        (after, splits.validation, record.validation_loss[0]),
        (after, splits.train, final["train_loss"]),
        (after, splits.test, final["test_loss"]),
    ]:
        logits = np.asarray(
            textbook.transformer(jax.tree.map(jnp.asarray, weights), jnp.asarray(split.x))["logits"], np.float64
        )
        parts = np.split(logits / 0.5, np.cumsum((2, 3, 5))[:-1], axis=1)
        expected = [stablemax_loss(part, split.y[:, k]) for k, part in enumerate(parts)]
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
