"""The transformer as in a textbook: three positions with a query each, full attention, no tables."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Array = jax.Array


def transformer(weights: Mapping[str, Array], x: Array, masks: tuple[Array, Array] | None = None) -> dict[str, Array]:
    """Return all activations at all three positions of [x0, x1, ŷ] for the digits `x` `[n, 2]`.

    `masks` `[n, 3, d]` multiply the residual stream after the attention sum and after the feed-forward sum.
    """
    after_attention, after_feed_forward = masks or (jnp.ones(()), jnp.ones(()))
    p = weights["token_embedding"].shape[0] - 1
    d_head = weights["query"].shape[2]
    answer = jnp.full((x.shape[0], 1), p)
    tokens = jnp.concatenate([x, answer], axis=1)  # [n, 3]

    z = weights["token_embedding"][tokens] + weights["position_embedding"][None]  # [n, 3, d]
    query = jnp.einsum("nid,dhk->nhik", z, weights["query"])
    key = jnp.einsum("njd,dhk->nhjk", z, weights["key"])
    value = jnp.einsum("njd,dhk->nhjk", z, weights["value"])
    scores = jnp.einsum("nhik,nhjk->nhij", query, key) / d_head**0.5
    attention = jnp.exp(scores) / jnp.exp(scores).sum(axis=-1, keepdims=True)  # [n, heads, 3, 3]
    heads = jnp.einsum("nhij,nhjk->nhik", attention, value)
    middle = (z + jnp.einsum("nhik,hkd->nid", heads, weights["attention_output"])) * after_attention
    neurons = jnp.maximum(jnp.einsum("nid,df->nif", middle, weights["feed_forward_in"]), 0)
    final = (middle + jnp.einsum("nif,fd->nid", neurons, weights["feed_forward_out"])) * after_feed_forward
    return {
        "attention": attention,
        "residual_middle": middle,
        "neurons": neurons,
        "residual_final": final,
        "logits": jnp.einsum("nd,dc->nc", final[:, 2], weights["unembedding"]),
    }


def weighted_loss(logits: Array, y: Array, moduli: tuple[int, ...]) -> Array:
    """Return Σ_q CE_q / ln q, computed plainly."""
    loss, start = jnp.zeros(()), 0
    for task, q in enumerate(moduli):
        log_probabilities = jax.nn.log_softmax(logits[:, start : start + q], axis=-1)
        of_labels = log_probabilities[jnp.arange(y.shape[0]), y[:, task]]
        loss = loss - of_labels.mean() / jnp.log(float(q))
        start += q
    return loss
