"""The paper's transformer: one block, no biases, no layer norm (2.4, 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.random import threefry_2x32

Array = jax.Array


class Transformer(nnx.Module):
    """The network on the sequence [x0, x1, ŷ], read at ŷ only (Eq. 7 to 11).

    The block is one layer deep and only the last position is read, so the one query is that of ŷ, keys and
    values are tables over p tokens and two positions, and the feed-forward runs on the last position alone.
    This is exact, not an approximation.
    """

    def __init__(self, p: int, d_model: int, n_heads: int, n_logits: int, rngs: nnx.Rngs) -> None:
        d_head = d_model // n_heads

        def he_normal(fan_in: int, *shape: int) -> nnx.Param[Array]:
            """He et al. (2015): standard deviation √(2/fan-in), the fan-in of one output."""
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
        """Named activations at ŷ for the digits `x` `[n, 2]`; a column a sample.

        `dropout` is applied to the residual stream after the attention sum and after the feed-forward sum.

        Returns `attention` `[heads, 3, n]` (from ŷ to x0, x1, ŷ), `residual_middle` `[d, n]`, `neurons`
        `[4d, n]` (after ReLU), `residual_final` `[d, n]` and `logits` `[Σq, n]`, a slice of the rows a task.
        """
        # Samples last: every product, and every sum over the classes of a task, then runs along them.
        digits, answer = self._embed()  # [2, d, p], [d]
        one_hot = jax.nn.one_hot(x.T, digits.shape[-1], axis=1)  # [2, p, n]
        n_heads, d_head = self.query.shape[1:]

        query = jnp.einsum("d,dhk->hk", answer, self.query[...])  # [heads, d_head]
        # One vector a head, so that no table of keys is needed: score = (W_K q)·z.
        reader = jnp.einsum("dhk,hk->hd", self.key[...], query) / jnp.sqrt(d_head)  # [heads, d]
        read_value = self.value[...].reshape(len(answer), -1).T  # [heads · d_head, d]
        # A lookup is a product with a one-hot matrix, and so is its gradient: no gather, no scatter.
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
        """The residual stream before the block: at (x0, x1) for every token `[2, d, p]`, at ŷ `[d]` (Eq. 7)."""
        token, position = self.token_embedding[...], self.position_embedding[...]
        return token[:-1].T + position[:2, :, None], token[-1] + position[2]


def make_dropout(key: Array, rate: Array, mask: str) -> Callable[[Array], Array]:
    """Dropout for one forward pass, a new mask at each call; `rate` may be traced, 0 is exactly off.

    `mask` is "sample" (independent for every sample) or "batch" (one for all, as in the public code).
    Masks come from 16 random bits, and what is kept is scaled by the rate that was really drawn from.
    """
    # One in 65536 is always kept: at a rate that rounds to 1 the scale would be infinite.
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
    """Draw the weights of a new network, by name.

    `initialisation` "he" is normal with the fan-in of one output (see `Transformer`); "public-code" is what the
    paper's authors ran (see `_public_code_weights`).
    """
    if initialisation == "public-code":
        return _public_code_weights(p, d_model, n_heads, moduli, key)
    model = Transformer(p, d_model, n_heads, sum(moduli), nnx.Rngs(params=key))
    weights: dict[str, Array] = nnx.to_pure_dict(nnx.state(model))
    return weights


def _public_code_weights(p: int, d_model: int, n_heads: int, moduli: tuple[int, ...], key: Array) -> dict[str, Array]:
    """Draw weights as the paper's public code does (commit d201562): JAX's `he_normal` on arrays of that code's shapes.

    That initialiser draws from a normal distribution truncated at two standard deviations. It counts all axes but the
    last as inputs, the head or task axis included. So queries, keys and values are √heads times smaller than "he", the
    unembedding √tasks times smaller, and the embeddings depend on their numbers of rows. Both feed-forward matrices
    come from one key, so that they hold the same draws in the same order, at half the size in the second.
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
        # That code has a row of max(q) logits for each task and masks the surplus ones.
        "unembedding": jnp.concatenate([logits[k, :, :q] for k, q in enumerate(moduli)], axis=1),
    }


def transformer_from_weights(weights: dict[str, Array]) -> Transformer:
    """The network that has these weights; all its sizes are read off them."""
    n_tokens, d_model = weights["token_embedding"].shape
    n_heads, n_logits = weights["query"].shape[1], weights["unembedding"].shape[1]
    # Abstract: nothing is drawn or computed to make the module that takes the weights.
    graph, state = nnx.split(
        nnx.eval_shape(lambda: Transformer(n_tokens - 1, d_model, n_heads, n_logits, nnx.Rngs(params=0)))
    )
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graph, state)
