"""The forward pass in NumPy against the network that trains and against the textbook's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from miiii_search.analysis.network import HOOK_NAMES, Floats, Weights, forward, grid, n_heads
from miiii_search.training.model import transformer_from_weights
from tests.analysis.networks import random_weights
from tests.training import textbook

SIZES = [(5, 16, 2), (7, 32, 4), (11, 24, 1), (13, 64, 8)]
NAMES = ("attention", "residual_middle", "neurons", "residual_final", "logits")


def of_textbook(weights: Weights, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Compute the activations at ŷ in float64, one column per sample."""
    with jax.enable_x64(True):
        in_float64 = {name: jnp.asarray(array, jnp.float64) for name, array in weights.items()}
        found = {name: np.asarray(a) for name, a in jax.jit(textbook.transformer)(in_float64, jnp.asarray(x)).items()}
    found["attention"] = found["attention"][:, :, 2]
    at_answer = {name: a[:, 2] if name in NAMES[1:4] else a for name, a in found.items()}
    return {name: np.moveaxis(a, 0, -1) for name, a in at_answer.items()}


@pytest.mark.parametrize(("p", "d_model", "heads"), SIZES)
def test_forward_is_that_of_training_and_of_the_textbook(p: int, d_model: int, heads: int) -> None:
    weights = random_weights(p, d_model, heads, 2 * p)
    found, expected = forward(weights, grid(p)), of_textbook(weights, grid(p))
    network = jax.jit(lambda weights, x: transformer_from_weights(weights)(x))
    trained = network({name: jnp.asarray(a) for name, a in weights.items()}, jnp.asarray(grid(p)))
    for name in NAMES:
        array = getattr(found, name)
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(array, trained[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert found.attention.std(axis=2).max() > 0.05, "attention that hardly varies would hide an error"
    assert n_heads(weights) == heads


@pytest.mark.parametrize(("p", "d_model", "heads"), SIZES)
def test_float64_stays_float64(p: int, d_model: int, heads: int) -> None:
    weights = random_weights(p, d_model, heads, p, dtype=np.float64)
    found, expected = forward(weights, grid(p)), of_textbook(weights, grid(p))
    for name in NAMES:
        assert getattr(found, name).dtype == np.float64
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_the_grid_has_x0_as_the_slower() -> None:
    assert grid(5).tolist() == [[x0, x1] for x0 in range(5) for x1 in range(5)]


def test_samples_in_any_order() -> None:
    weights, order = random_weights(7, 16, 2, 7), np.random.default_rng(0).permutation(49)[:20]
    np.testing.assert_allclose(
        forward(weights, grid(7)[order]).logits, forward(weights, grid(7)).logits[:, order], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", HOOK_NAMES)
def test_an_activation_in_its_own_place_changes_nothing(name: str) -> None:
    weights, seen = random_weights(7, 16, 2, 7), list[Floats]()

    def keep(activation: Floats) -> Floats:
        seen.append(activation)
        return activation

    escape_text = forward(weights, grid(7))
    hooked = forward(weights, grid(7), {name: keep})
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], getattr(escape_text, name))
    for of in ("head_output", *NAMES):
        np.testing.assert_array_equal(getattr(hooked, of), getattr(escape_text, of))


def test_attention_that_was_replaced() -> None:
    """With all attention on x0, a head's output is the value of x0's token, and later layers follow from it."""
    weights = random_weights(7, 16, 2, 7, dtype=np.float64)
    only_x0 = np.zeros((2, 3, 49))
    only_x0[:, 0] = 1
    found = forward(weights, grid(7), {"attention": lambda _: only_x0})
    for sample, (x0, _) in enumerate(grid(7)):
        z = weights["token_embedding"][x0] + weights["position_embedding"][0]
        middle = weights["token_embedding"][7] + weights["position_embedding"][2]
        for head in range(2):
            middle = middle + z @ weights["value"][:, head] @ weights["attention_output"][head]
        neurons = np.maximum(middle @ weights["feed_forward_in"], 0)
        logits = (middle + neurons @ weights["feed_forward_out"]) @ weights["unembedding"]
        np.testing.assert_allclose(found.logits[:, sample], logits, rtol=1e-10)


def test_hooks_on_heads_and_neurons() -> None:
    weights = random_weights(7, 16, 2, 7, dtype=np.float64)
    escape_text = forward(weights, grid(7))
    silent = forward(weights, grid(7), {"head_output": np.zeros_like, "neurons": np.zeros_like})
    answer = weights["token_embedding"][7] + weights["position_embedding"][2]
    np.testing.assert_allclose(silent.logits, np.tile((answer @ weights["unembedding"])[:, None], 49), rtol=1e-10)
    without = forward(weights, grid(7), {"neurons": np.zeros_like})
    np.testing.assert_allclose(without.logits, weights["unembedding"].T @ escape_text.residual_middle, rtol=1e-10)


def test_an_unknown_hook_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no hook \['logits'\]; one of attention, head_output, neurons"):
        forward(random_weights(5, 16, 2, 5), grid(5), {"logits": lambda a: a})


def test_scores_beyond_the_range_of_exp() -> None:
    weights = dict(random_weights(7, 16, 2, 7))
    weights["query"] = 1e4 * weights["query"]
    attention = forward(weights, grid(7)).attention
    np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-5)
