"""Two other implementations of the same training step, for comparison, in plain JAX with automatic derivatives.

`port` computes what the paper's public code computes, in its order:

- It computes one sample, mapped over the batch.
- Every position goes through the whole block, and each attention head writes to the residual stream by itself.
- Each task has an unembedding matrix of its own, padded to the largest modulus. The padding is masked.
- The loss is Optax's cross-entropy, and the derivatives of lookups are scatters.

`textbook` is what a competent author would write today: every position, one unembedding matrix without padding, and
Optax's cross-entropy on a slice of the logits per task.

Both return the loss, and the loss and accuracy of every task. The public code records these at each step, and so does
our step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from miiii_search.training.loss import task_slices

Array = jax.Array
Weights = dict[str, Array]
LossAndRecord = tuple[Array, tuple[Array, Array]]
"""The loss of Eq. 12, and the loss and the accuracy of every task, `[tasks]` each."""

DROPOUT = 0.1
"""Dropout rate."""


def drop(key: Array | None, z: Array) -> Array:
    """Apply dropout with a mask of the shape of `z`; return `z` itself if there is no key."""
    return z if key is None else z * jax.random.bernoulli(key, 1 - DROPOUT, z.shape) / (1 - DROPOUT)


def split_key(key: Array | None) -> tuple[Array | None, Array | None]:
    """Split a random key into two; None into two of None."""
    return (None, None) if key is None else tuple(jax.random.split(key))


def residual_stream(weights: Weights, x: Array, key: Array | None) -> Array:
    """Return the residual stream after the block, `[n, 3, d]`, for digits `x` `[n, 2]`."""
    first, second = split_key(key)
    answer = jnp.full((len(x), 1), len(weights["token_embedding"]) - 1)
    tokens = jnp.concatenate([x, answer], axis=1)  # [n, 3]
    z = weights["token_embedding"][tokens] + weights["position_embedding"]  # [n, 3, d]
    query, key, value = (jnp.einsum("npd,dhk->nhpk", z, weights[name]) for name in ("query", "key", "value"))
    scores = jnp.einsum("nhpk,nhqk->nhpq", query, key) / np.sqrt(query.shape[-1])
    mixed = jax.nn.softmax(scores, axis=-1) @ value  # [n, heads, 3, d_head]
    z = drop(first, z + jnp.einsum("nhpk,hkd->npd", mixed, weights["attention_output"]))
    return drop(second, z + jax.nn.relu(z @ weights["feed_forward_in"]) @ weights["feed_forward_out"])


def textbook_loss(weights: Weights, x: Array, y: Array, moduli: tuple[int, ...], key: Array | None) -> LossAndRecord:
    """Compute Eq. 12 with a slice of the logits per task, and a dropout mask for every sample."""
    logits = residual_stream(weights, x, key)[:, -1] @ weights["unembedding"]  # [n, Σq]
    losses, accuracies = [], []
    for task, columns in enumerate(task_slices(moduli)):
        of_task, labels = logits[:, columns], y[:, task]
        losses.append(optax.softmax_cross_entropy_with_integer_labels(of_task, labels).mean())
        accuracies.append((of_task.argmax(axis=-1) == labels).mean())
    return _total(jnp.stack(losses), jnp.stack(accuracies), moduli)


def port_logits(weights: Weights, x: Array, is_class: Array, key: Array | None) -> Array:
    """Return the logits of one sample, `[tasks, max q]`. Logits of padding are zero."""
    first, second = split_key(key)
    positions = jnp.arange(3)
    tokens = jnp.append(x, len(weights["token_embedding"]) - 1)
    z = jnp.take(weights["token_embedding"], tokens, axis=0) + jnp.take(
        weights["position_embedding"], positions, axis=0
    )
    query, key, value = (z @ weights[name] for name in ("query", "key", "value"))  # [heads, 3, d_head]
    scores = jnp.einsum("hpk,hqk->hpq", query, key) / jnp.sqrt(query.shape[-1])
    # Every head writes to the stream by itself, then the heads are added.
    written = jax.nn.softmax(scores, axis=-1) @ value @ weights["attention_output"]  # [heads, 3, d]
    z = drop(first, z + written.sum(axis=0))
    z = drop(second, z + jax.nn.relu(z @ weights["feed_forward_in"]) @ weights["feed_forward_out"])
    return (z[-1] @ weights["unembedding"]) * is_class


def port_loss(weights: Weights, x: Array, y: Array, moduli: tuple[int, ...], key: Array | None) -> LossAndRecord:
    """Compute Eq. 12 on padded heads, with one dropout mask per batch. The weights come from `port_weights`."""
    is_class = jnp.arange(max(moduli)) < jnp.asarray(moduli)[:, None]
    logits = jax.vmap(port_logits, in_axes=(None, 0, None, None))(weights, x, is_class, key)  # [n, tasks, max q]

    def loss_and_accuracy(logits: Array, labels: Array, is_class: Array) -> tuple[Array, Array]:
        masked = jnp.where(is_class, logits, -jnp.inf)
        losses: Array = optax.softmax_cross_entropy_with_integer_labels(masked, labels)
        return losses.mean(), (masked.argmax(axis=-1) == labels).mean()

    losses, accuracies = jax.vmap(loss_and_accuracy, in_axes=(1, 1, 0))(logits, y, is_class)  # [tasks]
    return _total(losses, accuracies, moduli)


def _total(losses: Array, accuracies: Array, moduli: tuple[int, ...]) -> LossAndRecord:
    return jnp.sum(losses / jnp.log(jnp.asarray(moduli))), (losses, accuracies)


def port_weights(weights: Weights, moduli: tuple[int, ...]) -> Weights:
    """Return the weights in the layout of `port_loss`: heads first, and the columns of each task padded with zeros."""
    columns = [
        jnp.pad(weights["unembedding"][:, s], ((0, 0), (0, max(moduli) - (s.stop - s.start))))
        for s in task_slices(moduli)
    ]
    heads_first = {name: jnp.moveaxis(weights[name], 1, 0) for name in ("query", "key", "value")}
    return {**weights, **heads_first, "unembedding": jnp.stack(columns)}  # [tasks, d, max q]
