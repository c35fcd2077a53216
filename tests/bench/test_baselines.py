"""The baselines of the benchmark train the same network: the same losses as ours, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from baselines import port_loss, port_weights, textbook_loss

from miiii_search.experiment import tasks
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.loss import task_weights, weighted_loss
from miiii_search.training.model import transformer_from_weights
from miiii_search.training.optimizer import make_optimizer
from miiii_search.training.program import Program, ProgramKey

pytestmark = pytest.mark.slow

EXPERIMENT = Experiment(p=13)
RUN = Hyperparameters(dropout=0.0, d_model=32, n_heads=4, learning_rate=1e-3)
STEPS = 50


def losses(loss: Callable[[Any], Any], weights: Any) -> list[float]:
    """The loss before each of 50 steps of the paper's optimizer; `loss` also returns what is recorded."""
    optimizer = make_optimizer(RUN.learning_rate, RUN.weight_decay, RUN.grokfast_lambda, EXPERIMENT.grokfast_alpha)

    @jax.jit
    def step(weights: Any, state: Any) -> Any:
        (value, _), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, value

    state, values = optimizer.init(weights), []
    for _ in range(STEPS):
        weights, state, value = step(weights, state)
        values.append(float(value))
    return values


@pytest.mark.parametrize("kind", ["textbook", "port"])
def test_baseline_has_our_losses_for_fifty_steps(kind: str) -> None:
    moduli = EXPERIMENT.task_moduli
    split = tasks.make_splits(EXPERIMENT).train
    x, y = jnp.asarray(split.x), jnp.asarray(split.y)
    weights = Program(ProgramKey.of(EXPERIMENT, RUN)).init(EXPERIMENT, RUN).weights
    scale = task_weights(moduli, EXPERIMENT.scored)
    baseline, adapted = {"textbook": (textbook_loss, weights), "port": (port_loss, port_weights(weights, moduli))}[kind]

    def our_loss(weights: Any) -> Any:
        return weighted_loss(transformer_from_weights(weights)(x)["logits"], y, scale, moduli)

    ours, theirs = losses(our_loss, weights), losses(lambda w: baseline(w, x, y, moduli, None), adapted)
    assert ours[-1] < 0.95 * ours[0]  # it does train
    np.testing.assert_allclose(theirs, ours, rtol=2e-4)
    of_tasks = zip(baseline(adapted, x, y, moduli, None)[1], our_loss(weights)[1], strict=True)
    for theirs_of_tasks, ours_of_tasks in of_tasks:  # losses, then accuracies
        np.testing.assert_allclose(theirs_of_tasks, ours_of_tasks, rtol=1e-5)
