"""The weighted cross-entropy (Eq. 12), with a gradient that float32 holds."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def task_slices(moduli: tuple[int, ...]) -> list[slice]:
    """Where the logits of each task lie among the Σq columns."""
    ends = np.cumsum(moduli)
    return [slice(int(end) - q, int(end)) for q, end in zip(moduli, ends, strict=True)]


def task_weights(moduli: tuple[int, ...], scored: tuple[bool, ...]) -> Array:
    """1/ln q, the inverse of a uniform guess's cross-entropy; 0 for tasks left out. `[tasks]`."""
    return jnp.asarray(np.where(scored, 1 / np.log(moduli), 0), jnp.float32)


def weighted_loss(logits: Array, y: Array, weights: Array, moduli: tuple[int, ...]) -> Array:
    """L = Σ_q w_q CE_q, CE_q the mean cross-entropy of task q over the batch (Eq. 12).

    `logits` `[n, Σq]`, `y` `[n, tasks]`, `weights` `[tasks]`.
    """
    return jnp.sum(weights * _cross_entropies(logits, y, moduli))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _cross_entropies(logits: Array, y: Array, moduli: tuple[int, ...]) -> Array:
    """Mean cross-entropy in nats of each task. `[tasks]`."""
    return _forward(logits, y, moduli)[0]


def _forward(logits: Array, y: Array, moduli: tuple[int, ...]) -> tuple[Array, Array]:
    """The cross-entropies, and their gradient by the logits without the factor of the incoming gradient."""
    losses, gradients = [], []
    for task, columns in enumerate(task_slices(moduli)):
        task_logits, label = logits[:, columns], y[:, task, None]
        is_label = jnp.arange(columns.stop - columns.start) == label
        # The maximum of this task alone: logits of different tasks drift apart by more than float32's exponent.
        maximum = jnp.max(task_logits, axis=-1, keepdims=True)
        exp = jnp.exp(task_logits - maximum)
        exp_others = jnp.where(is_label, 0, exp)
        others = jnp.sum(exp_others, axis=-1, keepdims=True)
        lag = jnp.sum(jnp.where(is_label, maximum - task_logits, 0), axis=-1, keepdims=True)
        exp_label = jnp.exp(-lag)
        total = others + exp_label
        # Where the label leads, exp_label is exactly 1 and log1p keeps what log(total) would round away.
        losses.append(jnp.mean(lag + jnp.log1p(others + (exp_label - 1))))
        # At the label softmax − 1 would cancel; −Σ_others softmax is the same number and does not.
        # See Prieto et al., Grokking at the edge of numerical stability, arXiv 2501.04697.
        gradients.append(jnp.where(is_label, -others, exp_others) / (total * len(logits)))
    return jnp.stack(losses), jnp.concatenate(gradients, axis=-1)


def _forward_rule(logits: Array, y: Array, moduli: tuple[int, ...]) -> tuple[Array, Array]:
    return _forward(logits, y, moduli)


def _backward_rule(moduli: tuple[int, ...], gradient: Array, incoming: Array) -> tuple[Array, None]:
    factor = jnp.repeat(incoming, np.asarray(moduli), total_repeat_length=sum(moduli))
    return gradient * factor, None


_cross_entropies.defvjp(_forward_rule, _backward_rule)


def evaluate(logits: Array, y: Array, moduli: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean cross-entropy (nats) and accuracy of each task. `[tasks]`, `[tasks]`."""
    hits = [
        jnp.mean((jnp.argmax(logits[:, columns], axis=-1) == y[:, task]).astype(jnp.float32))
        for task, columns in enumerate(task_slices(moduli))
    ]
    return _cross_entropies(logits, y, moduli), jnp.stack(hits)
