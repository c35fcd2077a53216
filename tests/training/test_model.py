"""The fast forward pass, compared with a textbook's; initial weights, and dropout."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from miiii_search.experiment.primes import primes_below
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.tasks import make_splits
from miiii_search.training.loss import task_slices, task_weights, weighted_loss
from miiii_search.training.model import initial_weights, make_dropout, transformer_from_weights
from tests.training import textbook

Array = jax.Array
Weights = dict[str, Array]
Network = Callable[[Weights], dict[str, Array]]
LossAndGradient = Callable[[Array, Array], tuple[Array, Array]]

N_SAMPLES = 256
MODULI = primes_below(113)
SIZES = [(d_model, n_heads) for d_model in (128, 256) for n_heads in (4, 8)]


@dataclass(frozen=True)
class Comparison:
    """Run both implementations on the same weights and samples, the textbook's in float64."""

    weights: Weights
    fast: dict[str, Any]
    textbook: dict[str, Any]


def make_weights(d_model: int, n_heads: int) -> Weights:
    weights = initial_weights(113, d_model, n_heads, MODULI, jax.random.PRNGKey(0))
    # Freshly initialised attention is almost uniform, which would hide an error in its scores.
    return weights | {"query": 20 * weights["query"]}


def in_float64(weights: Weights) -> Weights:
    return {name: array.astype(jnp.float64) for name, array in weights.items()}


# Compiled without optimization, since each of these runs only a few times.
@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def textbook_activations(weights: Weights, x: Array, masks: tuple[Array, Array] | None = None) -> dict[str, Array]:
    return textbook.transformer(weights, x, masks)


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def textbook_loss_and_gradient(logits: Array, y: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(textbook.weighted_loss)(logits, y, Experiment().task_moduli)


def samples(weights: Weights) -> tuple[Array, Array]:
    """Digits and labels of some training samples.

    Without those that bring a neuron to within 1e-5 of ReLU's kink, where rounding chooses the gradient.
    """
    train = make_splits(Experiment()).train
    with jax.enable_x64(True):
        middle = textbook_activations(in_float64(weights), train.x[:400])["residual_middle"][:, 2]
        distance = np.abs(np.asarray(middle @ in_float64(weights)["feed_forward_in"])).min(axis=1)
    clear = np.flatnonzero(distance > 1e-5)[:N_SAMPLES]
    assert len(clear) == N_SAMPLES
    return jnp.asarray(train.x[clear]), jnp.asarray(train.y[clear])


def samples_first(activations: dict[str, Array]) -> dict[str, Array]:
    """Transpose activations of ours, with one column per sample, to the textbook's, with one row."""
    return {name: jnp.moveaxis(array, -1, 0) for name, array in activations.items()}


@jax.jit
def fast_loss_and_gradient(logits: Array, y: Array) -> tuple[Array, Array]:
    moduli = Experiment().task_moduli
    of_tasks = task_weights(moduli, (True,) * len(moduli))
    (loss, _), gradient = jax.value_and_grad(weighted_loss, has_aux=True)(logits.T, y, of_tasks, moduli)
    return loss, gradient.T


@pytest.fixture(
    scope="module",
    params=SIZES,
    ids="d_model={0[0]},n_heads={0[1]}".format,
)
def comparison(request: pytest.FixtureRequest) -> Comparison:
    weights = make_weights(*request.param)
    x, y = samples(weights)
    direction = jax.random.normal(jax.random.PRNGKey(2), (N_SAMPLES, 1480))

    def run(network: Network, loss_and_gradient: LossAndGradient, weights: Weights, level: int) -> dict[str, Any]:
        @partial(jax.jit, compiler_options={"xla_backend_optimization_level": level})
        def backward(weights: Weights, by_logits: Array, along: Array) -> tuple[Weights, Weights]:
            back = jax.vjp(lambda w: network(w)["logits"], weights)[1]
            return back(by_logits)[0], back(along)[0]

        activations = jax.jit(network, compiler_options={"xla_backend_optimization_level": level})(weights)
        # The chain rule by hand, so that the loss, whose shape is the same for all sizes, is compiled once.
        loss, by_logits = loss_and_gradient(activations["logits"], y)
        gradients, along = backward(weights, by_logits, direction.astype(by_logits.dtype))
        names = "activations", "loss", "gradients", "gradients_along_direction"
        return dict(zip(names, jax.device_get((activations, loss, gradients, along)), strict=True))

    actual = run(lambda w: samples_first(transformer_from_weights(w)(x)), fast_loss_and_gradient, weights, level=3)
    with jax.enable_x64(True):
        expected = run(lambda w: textbook.transformer(w, x), textbook_loss_and_gradient, in_float64(weights), 0)
    return Comparison(weights, actual, expected)


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float64]) -> None:
    """Check equality to 1e-5 of the largest magnitude in the array."""
    assert actual.dtype == np.dtype(np.float32)
    assert expected.dtype == np.dtype(np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_activations_are_the_textbooks(comparison: Comparison) -> None:
    actual, expected = comparison.fast["activations"], comparison.textbook["activations"]
    assert_close(actual["logits"], expected["logits"])
    assert_close(actual["attention"], expected["attention"][:, :, 2])
    for name in ("residual_middle", "neurons", "residual_final"):
        assert_close(actual[name], expected[name][:, 2])
    # Otherwise the comparison would say little about attention.
    assert actual["attention"].max() > 0.7


@pytest.mark.slow
def test_gradients_of_the_loss_are_the_textbooks(comparison: Comparison) -> None:
    assert comparison.fast["loss"] == pytest.approx(comparison.textbook["loss"], rel=1e-5)
    gradients, expected = comparison.fast["gradients"], comparison.textbook["gradients"]
    assert gradients.keys() == expected.keys() == comparison.weights.keys()
    for name in gradients:
        assert_close(gradients[name], expected[name])


@pytest.mark.slow
def test_gradients_of_any_direction_are_the_textbooks(comparison: Comparison) -> None:
    """A random cotangent tests more than the loss's own, which sums to zero over the classes of a task."""
    expected = comparison.textbook["gradients_along_direction"]
    for name, gradient in comparison.fast["gradients_along_direction"].items():
        assert_close(gradient, expected[name])


def test_dropout_is_applied_after_the_two_sums() -> None:
    weights = make_weights(128, 4)
    x, _ = samples(weights)
    masks = [2.0 * jax.random.bernoulli(jax.random.PRNGKey(k), 0.5, (N_SAMPLES, 128)) for k in range(2)]
    remaining = iter(masks)
    actual = transformer_from_weights(weights)(x, lambda z: z * next(remaining).T)["logits"].T
    assert list(remaining) == []  # used at two places, no more and no less
    everywhere = [jnp.broadcast_to(mask[:, None], (N_SAMPLES, 3, 128)) for mask in masks]
    with jax.enable_x64(True):
        expected = textbook_activations(in_float64(weights), x, (everywhere[0], everywhere[1]))["logits"]
    assert_close(np.asarray(actual), np.asarray(expected))


def test_named_activations() -> None:
    weights, x = make_weights(128, 8), jnp.zeros((N_SAMPLES, 2), jnp.int32)
    activations = transformer_from_weights(weights)(x)
    assert {name: array.shape for name, array in activations.items()} == {
        "attention": (8, 3, N_SAMPLES),
        "residual_middle": (128, N_SAMPLES),
        "neurons": (512, N_SAMPLES),
        "residual_final": (128, N_SAMPLES),
        "logits": (1480, N_SAMPLES),
    }
    np.testing.assert_allclose(np.asarray(activations["attention"]).sum(axis=1), 1, rtol=1e-6)
    assert np.asarray(activations["neurons"]).min() == 0


@pytest.mark.parametrize(("d_model", "n_heads"), SIZES)
def test_initial_weights_follow_he(d_model: int, n_heads: int) -> None:
    d_head = d_model // n_heads
    prescribed = {  # shape and fan-in of one output
        "token_embedding": ((114, d_model), d_model),
        "position_embedding": ((3, d_model), d_model),
        "query": ((d_model, n_heads, d_head), d_model),
        "key": ((d_model, n_heads, d_head), d_model),
        "value": ((d_model, n_heads, d_head), d_model),
        "attention_output": ((n_heads, d_head, d_model), d_model),
        "feed_forward_in": ((d_model, 4 * d_model), d_model),
        "feed_forward_out": ((4 * d_model, d_model), 4 * d_model),
        "unembedding": ((d_model, 1480), d_model),
    }
    weights = initial_weights(113, d_model, n_heads, MODULI, jax.random.PRNGKey(0))
    assert weights.keys() == prescribed.keys()
    for name, (shape, fan_in) in prescribed.items():
        array = np.asarray(weights[name], np.float64)
        assert array.shape == shape
        deviation = np.sqrt(2 / fan_in)
        # Five standard errors: σ/√(2n) of the estimated deviation, and σ/√n of the mean.
        assert array.std() == pytest.approx(deviation, abs=5 * deviation / np.sqrt(2 * array.size))
        assert abs(array.mean()) < 5 * deviation / np.sqrt(array.size)
        # A normal distribution has 68.27 % within one deviation.
        share = np.mean(np.abs(array) < deviation)
        assert abs(share - 0.6827) < 5 * np.sqrt(0.6827 * 0.3173 / array.size)


@pytest.mark.slow
@pytest.mark.parametrize(("d_model", "n_heads"), SIZES)
def test_public_code_weights_follow_jax_he_normal(d_model: int, n_heads: int) -> None:
    d_head, n_tasks = d_model // n_heads, 29
    prescribed = {  # fan-in as JAX counts it on that code's arrays: all axes but the last
        "token_embedding": 114,
        "position_embedding": 3,
        "query": n_heads * d_model,
        "key": n_heads * d_model,
        "value": n_heads * d_model,
        "attention_output": n_heads * d_head,
        "feed_forward_in": d_model,
        "feed_forward_out": 4 * d_model,
        "unembedding": n_tasks * d_model,
    }
    weights = initial_weights(113, d_model, n_heads, MODULI, jax.random.PRNGKey(0), "public-code")
    ours = initial_weights(113, d_model, n_heads, MODULI, jax.random.PRNGKey(0))
    assert {name: array.shape for name, array in weights.items()} == {name: a.shape for name, a in ours.items()}
    # Of a normal distribution that is cut off at two standard deviations: its own deviation, and one deviation's share.
    cut = stats.truncnorm(-2, 2)
    within_one = float(cut.cdf(cut.std()) - cut.cdf(-cut.std()))
    for name, fan_in in prescribed.items():
        array = np.asarray(weights[name], np.float64)
        deviation = np.sqrt(2 / fan_in)
        error = deviation * np.sqrt((stats.truncnorm.stats(-2, 2, moments="k") + 2) / (4 * array.size))
        assert array.std() == pytest.approx(deviation, abs=5 * error), name
        assert abs(array.mean()) < 5 * deviation / np.sqrt(array.size), name
        assert np.abs(array).max() <= 2 * deviation / cut.std() * (1 + 1e-6), name
        assert np.abs(array).max() > 1.8 * deviation / cut.std() or array.size < 1000, name
        share = np.mean(np.abs(array) < deviation)
        assert abs(share - within_one) < 5 * np.sqrt(within_one * (1 - within_one) / array.size), name
    # The public code draws both feed-forward matrices from one key.
    np.testing.assert_allclose(
        weights["feed_forward_out"].ravel(), weights["feed_forward_in"].ravel() / 2, rtol=1e-6, atol=1e-9
    )


def test_public_code_unembeddings_are_slices_of_padded_ones() -> None:
    weights = initial_weights(113, 128, 4, MODULI, jax.random.PRNGKey(3), "public-code")
    first = [float(weights["unembedding"][0, rows.start]) for rows in task_slices(MODULI)]
    assert len(set(first)) == len(MODULI)  # no task repeats another's draws
    single = initial_weights(31, 128, 4, (31,), jax.random.PRNGKey(0), "public-code")
    assert single["unembedding"].shape == (128, 31)
    assert float(single["unembedding"].std()) == pytest.approx(np.sqrt(2 / 128), rel=0.05)


def test_no_two_matrices_are_drawn_alike() -> None:
    weights = initial_weights(113, 128, 4, MODULI, jax.random.PRNGKey(0))
    first = [float(array.ravel()[0]) / float(array.std()) for array in weights.values()]
    assert len(set(first)) == len(first)
    other = initial_weights(113, 128, 4, MODULI, jax.random.PRNGKey(1))
    assert all((weights[name] != other[name]).all() for name in weights)


def test_rate_zero_is_exactly_off() -> None:
    weights = make_weights(128, 4)
    x, _ = samples(weights)
    plain = transformer_from_weights(weights)(x)
    for mask in ("sample", "batch"):
        dropout = make_dropout(jax.random.PRNGKey(0), jnp.float32(0), mask)
        dropped = transformer_from_weights(weights)(x, dropout)
        for name in plain:
            assert (plain[name] == dropped[name]).all()


# 16 bits: a rate of r drops round(65536 r) of 65536. With 8 bits 0.1 would be 26/256 = 0.1016.
@pytest.mark.parametrize(("rate", "dropped"), [(0.1, 6554), (0.2, 13107), (0.5, 32768)])
@pytest.mark.parametrize("mask", ["sample", "batch"])
def test_share_and_scale(rate: float, dropped: int, mask: str) -> None:
    kept = 1 - dropped / 65536
    shape = (1000, 2000) if mask == "sample" else (2_000_000, 3)
    z = jnp.ones(shape, jnp.float32)
    output = np.asarray(jax.jit(lambda r: make_dropout(jax.random.PRNGKey(3), r, mask)(z))(jnp.float32(rate)))
    assert np.unique(output).tolist() == [0, pytest.approx(1 / kept, rel=1e-6)]
    share = np.mean(output[:, :1] > 0) if mask == "batch" else np.mean(output > 0)
    assert abs(share - kept) < 5 * np.sqrt(kept * (1 - kept) / 2_000_000)


def test_sample_masks_differ_and_batch_masks_do_not() -> None:
    z = jnp.ones((512, 64), jnp.float32)
    per_sample = np.asarray(make_dropout(jax.random.PRNGKey(0), jnp.float32(0.5), "sample")(z)).T > 0
    shared = np.asarray(make_dropout(jax.random.PRNGKey(0), jnp.float32(0.5), "batch")(z)).T > 0
    assert (shared == shared[0]).all()
    assert len(np.unique(per_sample, axis=0)) == 64
    # If independent, any two rows agree in about half of their 512 entries.
    agreement = np.array([np.mean(per_sample[0] == row) for row in per_sample[1:]])
    assert (np.abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(512)).all()


@pytest.mark.parametrize("mask", ["sample", "batch"])
def test_the_two_places_have_independent_masks(mask: str) -> None:
    dropout = make_dropout(jax.random.PRNGKey(0), jnp.float32(0.5), mask)
    z = jnp.ones((4096, 8), jnp.float32)
    first, second = np.asarray(dropout(z)) > 0, np.asarray(dropout(z)) > 0
    agreement = np.mean(first[:, 0] == second[:, 0])
    assert abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(4096)


def test_a_rate_next_to_one_is_finite() -> None:
    z = jnp.ones((64, 64), jnp.float32)
    value, gradient = jax.value_and_grad(
        lambda z: make_dropout(jax.random.PRNGKey(0), jnp.float32(0.9999999), "sample")(z).sum()
    )(z)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


def test_masks_follow_from_the_key() -> None:
    z = jnp.ones((64, 64), jnp.float32)
    first, again, other = (make_dropout(jax.random.PRNGKey(seed), jnp.float32(0.5), "sample")(z) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
