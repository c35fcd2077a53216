"""The paper's transformer: one block without biases and layer norm (2.4, 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.random import threefry_2x32

Array = jax.Array


class Transformer(nnx.Module):
    """The network on the sequence [x0, x1, ŷ], whose output is read at ŷ (Eq. 7 to 11).

    There is one block, and only the last position is read. So ŷ has the only query, and the feed-forward layer runs on
    the last position alone. Keys and values are tables over p tokens and two positions. This is exact, not an
    approximation.

    Args:
        p: The number of digits. The vocabulary has one more token, ŷ.
        d_model: The width of the residual stream.
        n_heads: The number of attention heads.
        n_logits: The number of logits of all tasks, Σq.
        rngs: The keys from which the weights are drawn.
    """

    def __init__(self, p: int, d_model: int, n_heads: int, n_logits: int, rngs: nnx.Rngs) -> None:
        d_head = d_model // n_heads

        def he_normal(fan_in: int, *shape: int) -> nnx.Param[Array]:
            """Draw weights with standard deviation √(2/fan-in), the fan-in of one output (He et al., 2015)."""
            return nnx.Param(jnp.sqrt(2 / fan_in) * jax.random.normal(rngs.params(), shape, jnp.float32))

        self.token_embedding = he_normal(d_model, p + 1, d_model)
        self.position_embedding = he_normal(d_model, 3, d_model)
        self.query = he_normal(d_model, d_model, n_heads, d_head)
        self.key = he_normal(d_model, d_model, n_heads, d_head)
        self.value = he_normal(d_model, d_model, n_heads, d_head)
        self.attention_output = he_normal(d_model, n_heads, d_head, d_model)
        self.feed_forward_in = he_normal(d_model, d_model, 4 * d_model)
        self.feed_forward_out = he_normal(4 * d_model, 4 * d_model, d_model)
        self.unembedding = he_normal(d_model, d_model, n_logits)

    def __call__(self, x: Array, dropout: Callable[[Array], Array] = lambda z: z) -> dict[str, Array]:
        """Compute the activations at ŷ.

        Args:
            x: Digits, `[n, 2]`.
            dropout: Applied to the residual stream after the attention sum and after the feed-forward sum.

        Returns:
            `attention` `[heads, 3, n]` (from ŷ to x0, x1 and ŷ), `residual_middle` `[d, n]`, `neurons` `[4d, n]`
            (after ReLU), `residual_final` `[d, n]` and `logits` `[Σq, n]`. Each task has a slice of the logits' rows.
        """
        # Samples are the last axis, along which every product and every sum over the classes of a task then runs.
        digits, answer = self._embed()  # [2, d, p], [d]
        one_hot = jax.nn.one_hot(x.T, digits.shape[-1], axis=1)  # [2, p, n]
        n_heads, d_head = self.query.shape[1:]

        query = jnp.einsum("d,dhk->hk", answer, self.query[...])  # [heads, d_head]
        # One vector per head, so that no table of keys is needed: score = (W_K q)·z.
        reader = jnp.einsum("dhk,hk->hd", self.key[...], query) / jnp.sqrt(d_head)  # [heads, d]
        read_value = self.value[...].reshape(len(answer), -1).T  # [heads · d_head, d]
        # A lookup is a product with a one-hot matrix, and so is its gradient. Neither gathers or scatters.
        score = [reader @ digits[i] @ one_hot[i] for i in (0, 1)]  # [heads, n]
        value = [(read_value @ digits[i] @ one_hot[i]).reshape(n_heads, d_head, -1) for i in (0, 1)]

        scores = jnp.stack([*score, jnp.broadcast_to((reader @ answer)[:, None], score[0].shape)], axis=1)
        attention = jax.nn.softmax(scores, axis=1)  # [heads, 3, n]
        mixed = (
            attention[:, 0, None] * value[0]
            + attention[:, 1, None] * value[1]
            + attention[:, 2, None] * (read_value @ answer).reshape(n_heads, d_head, 1)
        )  # [heads, d_head, n]
        write = self.attention_output[...].reshape(-1, len(answer)).T  # [d, heads · d_head]
        middle = dropout(answer[:, None] + write @ mixed.reshape(write.shape[1], -1))
        neurons = jax.nn.relu(self.feed_forward_in[...].T @ middle)
        final = dropout(middle + self.feed_forward_out[...].T @ neurons)
        return {
            "attention": attention,
            "residual_middle": middle,
            "neurons": neurons,
            "residual_final": final,
            "logits": self.unembedding[...].T @ final,
        }

    def _embed(self) -> tuple[Array, Array]:
        """Return the residual stream before the block (Eq. 7).

        Returns:
            At x0 and x1 for every token, `[2, d, p]`, and at ŷ, `[d]`.
        """
        token, position = self.token_embedding[...], self.position_embedding[...]
        return token[:-1].T + position[:2, :, None], token[-1] + position[2]


def make_dropout(key: Array, rate: Array, mask: str) -> Callable[[Array], Array]:
    """Return the dropout function of one forward pass. Each call draws a new mask.

    Masks are drawn with 16 random bits per value. Values that are kept are multiplied by
    1 / (1 - rate), with the rate rounded to 16 bits.

    Args:
        key: A key of JAX.
        rate: The probability of dropping a value. It may be traced; 0 switches dropout off exactly.
        mask: `sample` for an independent mask per sample, or `batch` for one mask for all, as in the public code.
    """
    # At least one in 65536 is kept: the scale of a rate that rounds to 1 would be infinite.
    threshold = jnp.minimum(jnp.round(rate * 65536), 65535).astype(jnp.uint32)
    scale = 1 / (1 - threshold.astype(jnp.float32) / 65536)
    calls = iter(range(1 << 30))

    def dropout(z: Array) -> Array:
        shape = z.shape if mask == "sample" else (*z.shape[:-1], 1)
        n_words = -(-math.prod(shape) // 2)
        words = threefry_2x32(jax.random.fold_in(key, next(calls)), jnp.arange(n_words, dtype=jnp.uint32))
        bits = jax.lax.bitcast_convert_type(words, jnp.uint16).ravel()[: math.prod(shape)].reshape(shape)
        return jnp.where(bits.astype(jnp.uint32) >= threshold, z * scale, 0)

    return dropout


def initial_weights(
    p: int, d_model: int, n_heads: int, moduli: tuple[int, ...], key: Array, initialisation: str = "he"
) -> dict[str, Array]:
    """Draw the weights of a new network.

    Args:
        p: The number of digits.
        d_model: The width of the residual stream.
        n_heads: The number of attention heads.
        moduli: The number of classes of each task.
        key: A key of JAX.
        initialisation: `he` for normal weights scaled by the fan-in of one output (see `Transformer`), or
            `public-code` for what the paper's authors ran (see `_public_code_weights`).

    Returns:
        The weights by name.
    """
    if initialisation == "public-code":
        return _public_code_weights(p, d_model, n_heads, moduli, key)
    model = Transformer(p, d_model, n_heads, sum(moduli), nnx.Rngs(params=key))
    weights: dict[str, Array] = nnx.to_pure_dict(nnx.state(model))
    return weights


def _public_code_weights(p: int, d_model: int, n_heads: int, moduli: tuple[int, ...], key: Array) -> dict[str, Array]:
    """Draw weights as the paper's public code does (commit d201562): JAX's `he_normal` on arrays of that code's shapes.

    That initialiser draws from a normal distribution truncated at two standard deviations. It counts all axes except
    the last as inputs, including the axis of heads or tasks. So queries, keys and values are √heads times smaller than
    with "he", and the unembedding √tasks times smaller. The scale of the embeddings depends on their numbers of rows.
    Both feed-forward matrices come from one key: they hold the same draws in the same order, in the second at half the
    size.
    """
    he_normal = jax.nn.initializers.he_normal()
    token, position, query, key_, value, output, feed_forward, unembedding = jax.random.split(key, 8)
    per_head = (n_heads, d_model, d_model // n_heads)
    logits = he_normal(unembedding, (len(moduli), d_model, max(moduli)), jnp.float32)
    return {
        "token_embedding": he_normal(token, (p + 1, d_model), jnp.float32),
        "position_embedding": he_normal(position, (3, d_model), jnp.float32),
        "query": he_normal(query, per_head, jnp.float32).transpose(1, 0, 2),
        "key": he_normal(key_, per_head, jnp.float32).transpose(1, 0, 2),
        "value": he_normal(value, per_head, jnp.float32).transpose(1, 0, 2),
        "attention_output": he_normal(output, (n_heads, d_model // n_heads, d_model), jnp.float32),
        "feed_forward_in": he_normal(feed_forward, (d_model, 4 * d_model), jnp.float32),
        "feed_forward_out": he_normal(feed_forward, (4 * d_model, d_model), jnp.float32),
        # That code has max(q) logits for each task and masks the surplus.
        "unembedding": jnp.concatenate([logits[k, :, :q] for k, q in enumerate(moduli)], axis=1),
    }


def transformer_from_weights(weights: dict[str, Array]) -> Transformer:
    """Return a network with the given weights, whose shapes determine its sizes.

    Args:
        weights: The weights by name, as `initial_weights` returns them.
    """
    n_tokens, d_model = weights["token_embedding"].shape
    n_heads, n_logits = weights["query"].shape[1], weights["unembedding"].shape[1]
    # Created abstractly, so that no weights are drawn only to be replaced.
    graph, state = nnx.split(
        nnx.eval_shape(lambda: Transformer(n_tokens - 1, d_model, n_heads, n_logits, nnx.Rngs(params=0)))
    )
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graph, state)
