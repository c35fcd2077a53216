"""The paper's transformer: one block, no biases, no layer norm (2.4, 3.3)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

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
        """Named activations at ŷ for the digits `x` `[n, 2]`.

        `dropout` is applied to the residual stream after the attention sum and after the feed-forward sum.

        Returns `attention` `[n, heads, 3]` (from ŷ to x0, x1, ŷ), `residual_middle` `[n, d]`, `neurons`
        `[n, 4d]` (after ReLU), `residual_final` `[n, d]` and `logits` `[n, Σq]`, a slice a task.
        """
        answer, digits = self._embed()
        n_heads, d_head = self.query.shape[1:]

        query = jnp.einsum("d,dhk->hk", answer, self.query[...])  # [heads, d_head]
        # One vector a head, so that no table of keys is needed: score = z·(W_K q).
        reader = jnp.einsum("dhk,hk->dh", self.key[...], query) / jnp.sqrt(d_head)  # [d, heads]
        score = digits @ reader  # [2, p, heads]
        value = jnp.einsum("itd,dhk->ithk", digits, self.value[...])  # [2, p, heads, d_head]
        answer_score, answer_value = answer @ reader, jnp.einsum("d,dhk->hk", answer, self.value[...])

        x0, x1 = x[:, 0], x[:, 1]
        scores = jnp.stack(
            [
                _look_up(score[0], x0),
                _look_up(score[1], x1),
                jnp.broadcast_to(answer_score, (len(x), n_heads)),
            ],
            -1,
        )
        attention = jax.nn.softmax(scores, axis=-1)  # [n, heads, 3]
        mixed = (
            attention[..., 0, None] * _look_up(value[0], x0)
            + attention[..., 1, None] * _look_up(value[1], x1)
            + attention[..., 2, None] * answer_value
        )  # [n, heads, d_head]
        middle = dropout(answer + jnp.einsum("nhk,hkd->nd", mixed, self.attention_output[...]))
        neurons = jax.nn.relu(middle @ self.feed_forward_in[...])
        final = dropout(middle + neurons @ self.feed_forward_out[...])
        return {
            "attention": attention,
            "residual_middle": middle,
            "neurons": neurons,
            "residual_final": final,
            "logits": final @ self.unembedding[...],
        }

    def _embed(self) -> tuple[Array, Array]:
        """The residual stream before the block: at ŷ `[d]`, at (x0, x1) for every token `[2, p, d]` (Eq. 7)."""
        token, position = self.token_embedding[...], self.position_embedding[...]
        return token[-1] + position[2], token[None, :-1] + position[:2, None]


@jax.custom_vjp
def _look_up(table: Array, index: Array) -> Array:
    """`table[index]`: `[p, …]`, `[n]` → `[n, …]`, with a matrix product for a gradient instead of a scatter."""
    return table[index]


def _look_up_forward(table: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
    return table[index], (index, table)


def _look_up_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    index, table = saved
    one_hot = (index[None, :] == jnp.arange(len(table))[:, None]).astype(gradient.dtype)  # [p, n]
    return (one_hot @ gradient.reshape(len(index), -1)).reshape(table.shape), None


_look_up.defvjp(_look_up_forward, _look_up_backward)


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
        shape = z.shape if mask == "sample" else (1, *z.shape[1:])
        bits = jax.random.bits(jax.random.fold_in(key, next(calls)), shape, jnp.uint16)
        return jnp.where(bits.astype(jnp.uint32) >= threshold, z * scale, 0)

    return dropout


def initial_weights(p: int, d_model: int, n_heads: int, n_logits: int, key: Array) -> dict[str, Array]:
    """The weights of a freshly initialised network, by name."""
    model = Transformer(p, d_model, n_heads, n_logits, nnx.Rngs(params=key))
    weights: dict[str, Array] = nnx.to_pure_dict(nnx.state(model))
    return weights


def with_weights(weights: dict[str, Array]) -> Transformer:
    """The network that has these weights; all its sizes are read off them."""
    n_tokens, d_model = weights["token_embedding"].shape
    n_heads, n_logits = weights["query"].shape[1], weights["unembedding"].shape[1]
    # Abstract: nothing is drawn or computed to make the module that takes the weights.
    graph, state = nnx.split(
        nnx.eval_shape(lambda: Transformer(n_tokens - 1, d_model, n_heads, n_logits, nnx.Rngs(params=0)))
    )
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graph, state)
