"""The gradient filter, compared with Lee et al.'s recurrence; AdamW, with optax and with the formulas."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.typing import NDArray

from miiii_search.training.optimizer import grokfast_ema, make_optimizer

Array = jax.Array
Floats = NDArray[np.float64]
Tree = dict[str, Array]

STEPS = 50
SHAPES = {"matrix": (5, 3), "vector": (7,), "tensor": (2, 3, 4)}


def make_gradients() -> list[dict[str, NDArray[np.float32]]]:
    """Return fifty gradients that drift, so that slow and fast parts differ, of sizes from 1e-6 to 1."""
    rng = np.random.default_rng(0)
    size = {name: 10.0 ** rng.uniform(-6, 0, shape) for name, shape in SHAPES.items()}
    slow = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    return [
        {
            name: (size[name] * (slow[name] * np.cos(step / 20) + rng.normal(size=shape))).astype(np.float32)
            for name, shape in SHAPES.items()
        }
        for step in range(STEPS)
    ]


def make_parameters() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def filtered(gradients: list[Floats], alpha: float, amplitude: float, start: str = "first-gradient") -> list[Floats]:
    """Compute algorithm 1 of Lee et al. (2024) in float64."""
    average = gradients[0] if start == "first-gradient" else np.zeros_like(gradients[0])
    result = []
    for g in gradients:
        average = alpha * average + (1 - alpha) * g
        result.append(g + amplitude * average)
    return result


def adamw(parameter: Floats, gradients: list[Floats], learning_rate: float, weight_decay: float) -> list[Floats]:
    """Return the parameter after every step of algorithm 2 of Loshchilov & Hutter (2019), in float64."""
    first, second = np.zeros_like(parameter), np.zeros_like(parameter)
    result = []
    for t, g in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * g
        second = 0.98 * second + 0.02 * g**2
        direction = (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.98**t)) + 1e-8)
        parameter = parameter - learning_rate * (direction + weight_decay * parameter)
        result.append(parameter)
    return result


def run(optimizer: optax.GradientTransformation, gradients: list[dict[str, NDArray[np.float32]]]) -> list[Tree]:
    """Return the parameters after every step."""

    @jax.jit
    def step(parameters: Tree, state: optax.OptState, g: Tree) -> tuple[Tree, optax.OptState]:
        updates, state = optimizer.update(g, state, parameters)
        return optax.apply_updates(parameters, updates), state

    parameters: Tree = jax.tree.map(jnp.asarray, make_parameters())
    state, result = optimizer.init(parameters), []
    for g in gradients:
        parameters, state = step(parameters, state, jax.tree.map(jnp.asarray, g))
        result.append(parameters)
    return result


def column(gradients: list[dict[str, NDArray[np.float32]]], name: str) -> list[Floats]:
    return [g[name].astype(np.float64) for g in gradients]


@pytest.mark.parametrize("start", ["first-gradient", "zero"])
@pytest.mark.parametrize(("alpha", "amplitude"), [(0.98, 0.5), (0.98, 2.0), (0.5, 1.0), (0.0, 3.0)])
def test_the_filter_is_the_recurrence(alpha: float, amplitude: float, start: str) -> None:
    gradients = make_gradients()
    transformation = grokfast_ema(alpha, amplitude, start)
    state = transformation.init(jax.tree.map(jnp.asarray, gradients[0]))
    expected = {name: filtered(column(gradients, name), alpha, amplitude, start) for name in SHAPES}
    for t, g in enumerate(gradients):
        output, state = transformation.update(jax.tree.map(jnp.asarray, g), state)
        for name in SHAPES:
            scale = np.abs(expected[name][t]).max()
            np.testing.assert_allclose(output[name], expected[name][t], rtol=1e-5, atol=1e-6 * scale)


def test_the_first_average_is_the_first_gradient() -> None:
    transformation = grokfast_ema(0.98, 2.0)
    first = {"w": jnp.asarray([1.0, -4.0])}
    output, _ = transformation.update(first, transformation.init(first))
    # 3 g_0. With an initial average of zero it would be 1.04 g_0.
    assert output["w"].tolist() == [3.0, -12.0]


def test_amplitude_zero_changes_no_bit() -> None:
    update = jax.jit(lambda amplitude, g, state: grokfast_ema(0.98, amplitude).update(g, state))
    gradients = make_gradients()
    state = grokfast_ema(0.98, 0.0).init(jax.tree.map(jnp.asarray, gradients[0]))
    for g in gradients:
        output, state = update(jnp.float32(0), jax.tree.map(jnp.asarray, g), state)
        for name in SHAPES:
            assert (np.asarray(output[name]) == g[name]).all()


@pytest.mark.parametrize(
    ("learning_rate", "weight_decay", "amplitude"), [(1e-3, 1 / 3, 0.5), (3e-2, 1.0, 2.0), (1e-3, 0.0, 0.0)]
)
def test_fifty_steps(learning_rate: float, weight_decay: float, amplitude: float) -> None:
    gradients = make_gradients()
    actual = run(make_optimizer(learning_rate, weight_decay, amplitude, 0.98), gradients)
    by_hand = {name: filtered(column(gradients, name), 0.98, amplitude) for name in SHAPES}
    plain = optax.adamw(learning_rate, b1=0.9, b2=0.98, eps=1e-8, weight_decay=weight_decay)
    fed = [{name: by_hand[name][t].astype(np.float32) for name in SHAPES} for t in range(STEPS)]
    of_optax = run(plain, fed)
    start = make_parameters()
    for name in SHAPES:
        textbook = adamw(start[name].astype(np.float64), by_hand[name], learning_rate, weight_decay)
        for t in range(STEPS):
            # Relative to the length of the path, since a parameter may pass through zero.
            atol = 1e-5 * learning_rate * (t + 1) + 1e-6
            np.testing.assert_allclose(actual[t][name], of_optax[t][name], rtol=1e-6, atol=atol)
            np.testing.assert_allclose(actual[t][name], textbook[t], rtol=1e-6, atol=atol)
        # The path is far longer than the tolerance.
        assert np.median(np.abs(np.asarray(actual[-1][name]) - start[name])) > 4 * learning_rate


def test_traced_knobs_share_a_program_and_change_nothing() -> None:
    gradients = make_gradients()
    parameters = jax.tree.map(jnp.asarray, make_parameters())

    @jax.jit
    def two_steps(traced: Array) -> Tree:
        optimizer = make_optimizer(traced[0], traced[1], traced[2], traced[3])
        state, result = optimizer.init(parameters), parameters
        for g in gradients[:2]:
            updates, state = optimizer.update(jax.tree.map(jnp.asarray, g), state, result)
            result = jax.tree.map(jnp.add, result, updates)
        return dict(result)

    for traced in [(1e-3, 0.5, 2.0, 0.98), (3e-4, 0.0, 0.0, 0.9), (1e-2, 1.0, 0.5, 0.5)]:
        expected = run(make_optimizer(*traced), gradients[:2])[-1]
        actual = two_steps(jnp.asarray(traced, jnp.float32))
        for name in SHAPES:
            np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6, atol=1e-7)
    assert cache_size(two_steps) == 1


def cache_size(compiled: Callable[..., object]) -> int:
    size: int = compiled._cache_size()  # type: ignore[attr-defined]
    return size
