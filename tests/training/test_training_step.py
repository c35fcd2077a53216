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
from miiii_search.training.constraints import weight_ceiling
from miiii_search.training.lane_functions import LaneFunctions
from miiii_search.training.lane_state import LaneState, TracedHyperparameters
from miiii_search.training.lanes import Lanes
from miiii_search.training.matrices import row_axes
from miiii_search.training.optimizer import make_optimizer
from miiii_search.training.program import ProgramKey
from tests.training.plain_optimizers import Adam, Lion, Muon, Weights, cut_matrix, cut_rows, orthogonal_part

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
            option_values=numbers,
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


def check_against(
    hyperparameters: Hyperparameters, gradients: list[Weights], next_weights: Callable[..., Weights]
) -> None:
    """Compare every step with `next_weights(previous, gradients, initial)` from where the program's last step ended."""
    start = draw(100)
    before = start
    for t, after in enumerate(train(hyperparameters, gradients, start)):
        expected = next_weights(before, gradients[t], start)
        for matrix in SHAPES:
            np.testing.assert_allclose(after[matrix], expected[matrix], rtol=2e-5, atol=2e-6, err_msg=f"{t} {matrix}")
        before = after


ENDS = ("token_embedding", "position_embedding", "unembedding")


def test_the_orthogonal_gradient_has_no_part_along_the_weights() -> None:
    plain = Adam(3e-3, 0.7)

    def step(w: Weights, g: Weights, _: Weights) -> Weights:
        return plain.step(w, {name: orthogonal_part(w[name], g[name]) for name in g})

    # Gradients that point almost along the initial weights, so that the projection removes nearly all of them.
    gradients = [{n: draw(100)[n] + 0.1 * g for n, g in draw(seed).items()} for seed in range(5)]
    check_against(BASE.model_copy(update={"gradient_projection": "orthogonal"}), gradients, step)


def test_rate_factors_are_those_of_the_embeddings_and_the_unembedding() -> None:
    options = {"embedding_rate_factor": 0.25, "unembedding_rate_factor": 3.0}
    adams = {name: Adam(3e-3 * factor, 0.7) for name, factor in zip(ENDS, (0.25, 0.25, 3.0), strict=True)}
    others = Adam(3e-3, 0.7)

    def step(w: Weights, g: Weights, _: Weights) -> Weights:
        result = others.step(w, {name: g[name] for name in g if name not in ENDS})
        for name, adam in adams.items():
            result |= adam.step({name: w[name]}, {name: g[name]})
        return result

    check_against(BASE.model_copy(update=options), [draw(seed) for seed in range(5)], step)


@pytest.mark.parametrize("by", ["row", "matrix"])
@pytest.mark.parametrize("ratio", [0.9, 1.001])
def test_no_norm_exceeds_its_ceiling(by: str, ratio: float) -> None:
    options = {"weight_ceiling": by, "weight_ceiling_ratio": ratio, "weight_decay": 0.0}
    plain, cuts = Adam(3e-3, 0.0), 0

    def step(w: Weights, g: Weights, initial: Weights) -> Weights:
        nonlocal cuts
        free = plain.step(w, g)
        cut = {
            name: cut_rows(name, free[name], initial[name], ratio)
            if by == "row"
            else cut_matrix(free[name], initial[name], ratio)
            for name in free
        }
        cuts += sum(not np.array_equal(cut[name], free[name]) for name in free)
        return cut

    hyperparameters = BASE.model_copy(update=options)
    gradients = [{name: -w for name, w in draw(100).items()} for _ in range(4)]  # away from zero
    check_against(hyperparameters, gradients, step)
    assert cuts >= 2 * len(SHAPES)


@pytest.mark.parametrize("by", ["row", "matrix"])
def test_a_ceiling_at_infinity_returns_every_step_as_it_is(by: str) -> None:
    w, steps = ({name: jnp.float32(array) for name, array in draw(seed).items()} for seed in (100, 1))
    ceiling = weight_ceiling(jnp.float32(jnp.inf), by)
    result, _ = ceiling.update(steps, ceiling.init(w), w)
    assert all(np.array_equal(result[name], steps[name]) for name in SHAPES)


def test_embeddings_freeze_at_the_first_evaluation_with_every_task_at_the_target() -> None:
    free, frozen = (
        make_optimizer(3e-3, 0.7, 0.0, 0.98, switches=replace(PAPER, freeze_embeddings=when))
        for when in ("never", "solved")
    )
    w = {name: jnp.float32(array) for name, array in draw(100).items()}
    state, state_of_free = frozen.init(w), free.init(w)
    for seed, streak in enumerate([0, 0, 1, 0]):  # the last evaluation is below the target again
        g = {name: jnp.float32(array) for name, array in draw(seed).items()}
        steps, state = frozen.update(g, state, w, streak=jnp.int32(streak))
        of_free, state_of_free = free.update(g, state_of_free, w, streak=jnp.int32(streak))
        for name in SHAPES:
            if name in ENDS and seed >= 2:
                assert not np.any(steps[name])
            else:
                assert np.array_equal(steps[name], of_free[name]) and np.any(steps[name])


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
        option_values={name: jnp.float32(getattr(hyperparameters, name)) for name in switches.traced},
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
    assert float(halved.option_values[f"{optimizer}_learning_rate"]) == np.float32(rate) / 2
    assert float(halved.option_values[f"{optimizer}_weight_decay"]) == np.float32(0.8) / 4
    others = state.hyperparameters.option_values.keys() - {f"{optimizer}_learning_rate", f"{optimizer}_weight_decay"}
    assert others
    for name in others:
        assert halved.option_values[name] == state.hyperparameters.option_values[name]


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


ALL = BASE.model_copy(
    update={
        "optimizer": "muon",
        "gradient_projection": "orthogonal",
        "embedding_rate_factor": 0.5,
        "weight_ceiling": "row",
        "freeze_embeddings": "solved",
        "adam_beta2": 0.9,
    }
)


@pytest.mark.slow
def test_a_lane_trains_with_all_options_alone_and_in_a_batch() -> None:
    results = []
    for batched in (False, True):
        lanes = Lanes(ProgramKey.of(EXPERIMENT, ALL), batched=batched)
        lane = lanes.admit(EXPERIMENT, ALL)
        start = lanes.weights(lane)
        lanes.train(2)
        results.append(lanes.weights(lane))
    alone, in_a_batch = results
    for name, w in alone.items():
        np.testing.assert_allclose(in_a_batch[name], w, rtol=1e-3, atol=1e-4)
        assert not np.array_equal(w, start[name])
    # The initial norm is the ceiling of every row.
    for name, w in start.items():
        limit = np.linalg.norm(w, axis=row_axes(name)) if len(row_axes(name)) == 1 else np.sqrt((w**2).sum((0, 1)))
        norm = np.sqrt((alone[name] ** 2).sum(row_axes(name)))
        assert (norm <= limit * (1 + 1e-6)).all()


def test_a_lane_freezes_after_an_evaluation_at_the_target() -> None:
    experiment = EXPERIMENT.model_copy(update={"target_accuracy": 0.01, "solved_evaluations": 5})
    hyperparameters = BASE.model_copy(update={"freeze_embeddings": "solved"})
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters), batched=False)
    lane = lanes.admit(experiment, hyperparameters)
    [at_target] = [lanes.train(1)[lane].validation_accuracy[0].min() >= 0.01]
    assert at_target
    first = lanes.weights(lane)
    lanes.train(1)
    second = lanes.weights(lane)
    assert {name for name in first if np.array_equal(first[name], second[name])} == set(ENDS)


def test_a_state_continues_with_the_numbers_of_its_switches() -> None:
    lanes = Lanes(ProgramKey.of(EXPERIMENT, ALL), batched=False)
    lane = lanes.admit(EXPERIMENT, ALL)
    lanes.train(1)
    halfway = lanes.state(lane)
    lanes.train(1)
    resumed = lanes.admit(EXPERIMENT, ALL, halfway)
    lanes.train(1)
    for name, w in lanes.weights(lane).items():
        assert not np.array_equal(w, halfway[f"weights.{name}"])
    assert "knobs.option_values.muon_momentum" in halfway
    assert lanes.progress(resumed).epoch == 2 * EXPERIMENT.evaluation_interval
