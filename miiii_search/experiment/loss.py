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
    return jnp.mean(_compare(logits, y, moduli)[0], axis=0)


def _compare(logits: Array, y: Array, moduli: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Every sample against its labels.

    Returns the cross-entropy `[n, tasks]`, whether the label has the largest logit, alone, `[n, tasks]`, and
    the gradient of each cross-entropy by its task's logits `[n, Σq]`.
    """
    losses, hits, gradients = [], [], []
    for task, columns in enumerate(task_slices(moduli)):
        task_logits, label = logits[:, columns], y[:, task, None]
        is_label = jnp.arange(columns.stop - columns.start) == label
        label_logit = jnp.sum(jnp.where(is_label, task_logits, 0), axis=-1, keepdims=True)
        runner_up = jnp.max(jnp.where(is_label, -jnp.inf, task_logits), axis=-1, keepdims=True)
        # The maximum of this task alone: logits of different tasks drift apart by more than float32's exponent.
        maximum = jnp.maximum(label_logit, runner_up)
        exp_others = jnp.where(is_label, 0, jnp.exp(task_logits - maximum))
        exp_label = jnp.exp(label_logit - maximum)
        others = jnp.sum(exp_others, axis=-1, keepdims=True)
        # Where the label leads, exp_label is exactly 1, and log1p keeps what log(others + 1) would round away.
        losses.append(maximum - label_logit + jnp.log1p(others + (exp_label - 1)))
        hits.append(label_logit > runner_up)
        # At the label softmax − 1 would cancel; −Σ_others softmax is the same number and does not.
        # See Prieto et al., Grokking at the edge of numerical stability, arXiv 2501.04697.
        gradients.append(jnp.where(is_label, -others, exp_others) / (others + exp_label))
    loss, hit, gradient = (jnp.concatenate(parts, axis=-1) for parts in (losses, hits, gradients))
    return loss, hit, gradient


def _forward_rule(logits: Array, y: Array, moduli: tuple[int, ...]) -> tuple[Array, Array]:
    losses, _, gradients = _compare(logits, y, moduli)
    return jnp.mean(losses, axis=0), gradients


def _backward_rule(moduli: tuple[int, ...], gradients: Array, incoming: Array) -> tuple[Array, None]:
    factor = jnp.repeat(incoming / len(gradients), np.asarray(moduli), total_repeat_length=sum(moduli))
    return gradients * factor, None


_cross_entropies.defvjp(_forward_rule, _backward_rule)


def evaluate(logits: Array, y: Array, moduli: tuple[int, ...]) -> tuple[Array, Array]:
    """Cross-entropy (nats) of every sample and task, and whether it was right. `[n, tasks]`, `[n, tasks]`.

    A label that shares the largest logit with another class is wrong: a network that has died knows nothing.
    """
    losses, hits, _ = _compare(logits, y, moduli)
    return losses, hits
