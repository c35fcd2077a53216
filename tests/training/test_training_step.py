"""The options of the training step, compared with their publications in float64."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from miiii_search.experiment.spec import Annealing, Experiment, Hyperparameters, LinearDecay
from miiii_search.experiment.switches import PAPER, Switches
from miiii_search.training.lane_functions import LaneFunctions
from miiii_search.training.lane_state import LaneState, TracedHyperparameters
from miiii_search.training.optimizer import make_optimizer
from tests.training.plain_optimizers import Adam, Lion, Muon, Weights

STEPS = 20
SHAPES = {
    "token_embedding": (6, 8),
    "position_embedding": (3, 8),
    "query": (8, 2, 4),
    "attention_output": (2, 4, 8),
    "feed_forward_in": (8, 32),
    "feed_forward_out": (32, 8),
    "unembedding": (8, 10),
}


def draw(seed: int, scale: float = 1.0) -> Weights:
    """Return weights, or gradients, of the shapes that a network of width 8 has."""
    rng = np.random.default_rng(seed)
    return {
        name: scale * rng.normal(size=shape).astype(np.float32).astype(np.float64) for name, shape in SHAPES.items()
    }


def train(hyperparameters: Hyperparameters, gradients: list[Weights], start: Weights) -> list[Weights]:
    """Return the weights after every step of the program's optimizer, without the gradient filter."""
    switches = Switches.of(hyperparameters)
    numbers = {name: jnp.float32(getattr(hyperparameters, name)) for name in switches.traced}

    @jax.jit
    def step(weights: Any, state: Any, g: Any, numbers: Any) -> Any:
        updates, state = optimizer(numbers).update(g, state, weights)
        return optax.apply_updates(weights, updates), state

    def optimizer(numbers: Any) -> optax.GradientTransformation:
        return make_optimizer(
            hyperparameters.learning_rate,
            hyperparameters.weight_decay,
            0.0,
            0.98,
            switches=switches,
            of_switches=numbers,
        )

    weights = jax.tree.map(jnp.float32, start)
    state, result = optimizer(numbers).init(weights), []
    for g in gradients:
        weights, state = step(weights, state, jax.tree.map(jnp.float32, g), numbers)
        result.append({name: np.asarray(w, np.float64) for name, w in weights.items()})
    return result


BASE = Hyperparameters(d_model=8, n_heads=2, learning_rate=3e-3, weight_decay=0.7)

OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[[], Adam | Lion | Muon]]] = {
    "adamw": ({}, lambda: Adam(3e-3, 0.7)),
    "adam_beta2": ({"adam_beta2": 0.9}, lambda: Adam(3e-3, 0.7, beta2=0.9)),
    "lion": (
        {
            "optimizer": "lion",
            "lion_learning_rate": 2e-3,
            "lion_weight_decay": 3.0,
            "lion_beta1": 0.8,
            "lion_beta2": 0.95,
        },
        lambda: Lion(2e-3, 3.0, 0.8, 0.95),
    ),
    "muon": (
        {"optimizer": "muon", "muon_learning_rate": 0.03, "muon_weight_decay": 0.4, "muon_momentum": 0.9},
        lambda: Muon(0.03, 0.4, 0.9, Adam(3e-3, 0.7)),
    ),
    "muon with adam_beta2": (
        {"optimizer": "muon", "adam_beta2": 0.9},
        lambda: Muon(0.02, 0.1, 0.95, Adam(3e-3, 0.7, beta2=0.9)),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_is_the_published_one(name: str) -> None:
    options, make_plain = OPTIMIZERS[name]
    gradients, start = [draw(seed, 10.0 ** -(seed % 3)) for seed in range(STEPS)], draw(100)
    actual, plain, expected = train(BASE.model_copy(update=options), gradients, start), make_plain(), start
    for t, g in enumerate(gradients):
        expected = plain.step(expected, g)
        for matrix in SHAPES:
            moved = np.linalg.norm(expected[matrix] - start[matrix])
            # Five Newton-Schulz iterations multiply an error of rounding by up to 3.4 each.
            assert np.linalg.norm(actual[t][matrix] - expected[matrix]) < 3e-5 * moved + 1e-6, (t, matrix)


EXPERIMENT = Experiment(p=7, train_fraction=0.5, epochs=40, evaluate_every=4, validation_samples=12)


def first_state(experiment: Experiment, hyperparameters: Hyperparameters) -> tuple[LaneFunctions, LaneState]:
    """Return the functions of a lane, and its state before the first epoch."""
    switches = Switches.of(hyperparameters)
    functions = LaneFunctions(experiment, hyperparameters.d_model, hyperparameters.n_heads, switches)
    traced = TracedHyperparameters(
        **{
            name: jnp.float32(getattr(hyperparameters, name))
            for name in ("learning_rate", "weight_decay", "grokfast_lambda", "dropout")
        },
        grokfast_alpha=jnp.float32(experiment.grokfast_alpha),
        of_switches={name: jnp.float32(getattr(hyperparameters, name)) for name in switches.traced},
    )
    return functions, functions.initial_state(jax.random.PRNGKey(0), traced)


@pytest.mark.parametrize("optimizer", ["muon", "lion"])
def test_annealing_applies_to_the_rates_and_decays_of_each_optimizer(optimizer: str) -> None:
    hyperparameters = BASE.model_copy(update={"optimizer": optimizer, f"{optimizer}_weight_decay": 0.8})
    annealing = Annealing(
        learning_rate=LinearDecay(start=0, end=4, end_factor=0.5), weight_decay=LinearDecay(end=2, end_factor=0.25)
    )
    _, state = first_state(EXPERIMENT.model_copy(update={"annealing": annealing}), hyperparameters)
    halved = state.hyperparameters.annealed({"learning_rate": jnp.float32(0.5), "weight_decay": jnp.float32(0.25)})
    rate = getattr(hyperparameters, f"{optimizer}_learning_rate")
    assert float(halved.learning_rate) == np.float32(BASE.learning_rate) / 2
    assert float(halved.of_switches[f"{optimizer}_learning_rate"]) == np.float32(rate) / 2
    assert float(halved.of_switches[f"{optimizer}_weight_decay"]) == np.float32(0.8) / 4
    others = state.hyperparameters.of_switches.keys() - {f"{optimizer}_learning_rate", f"{optimizer}_weight_decay"}
    assert others
    for name in others:
        assert halved.of_switches[name] == state.hyperparameters.of_switches[name]


def test_only_numbers_differ_between_runs_that_share_a_program() -> None:
    muon = BASE.model_copy(update={"optimizer": "muon"})
    other = muon.model_copy(update={"muon_learning_rate": 0.5, "muon_momentum": 0.1, "lion_beta1": 0.3})
    assert Switches.of(muon) == Switches.of(other) != PAPER
    assert Switches.of(BASE.model_copy(update={"muon_learning_rate": 0.5})) == PAPER
    # Lion has no β2 of AdamW's, so its program does not depend on it.
    lion = BASE.model_copy(update={"optimizer": "lion"})
    assert Switches.of(lion.model_copy(update={"adam_beta2": 0.5})) == Switches.of(lion)
    assert Switches.of(BASE.model_copy(update={"adam_beta2": 0.5})) == replace(PAPER, adam_beta2=True)


def test_switches_in_words() -> None:
    assert str(PAPER) == ""
    assert str(Switches("muon", adam_beta2=True)) == "optimizer=muon adam_beta2"
