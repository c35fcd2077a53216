"""The weighted cross-entropy (Eq. 12), with a gradient that float32 holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Combine = Callable[[Array, Array], Array]
"""`jnp.maximum` or `jnp.add`."""


def task_slices(moduli: tuple[int, ...]) -> list[slice]:
    """Where the logits of each task lie among the Σq rows."""
    ends = np.cumsum(moduli)
    return [slice(int(end) - q, int(end)) for q, end in zip(moduli, ends, strict=True)]


def task_weights(moduli: tuple[int, ...], scored: tuple[bool, ...], reduction: str = "sum") -> Array:
    """Return each task's factor in the loss. `[tasks]`.

    It is 1/ln q, the inverse of a uniform guess's cross-entropy, and 0 for tasks left out. With the reduction "mean"
    it is divided by the number of all tasks, those left out included, as in the public code.
    """
    divisor = len(moduli) if reduction == "mean" else 1
    return jnp.asarray(np.where(scored, 1 / np.log(moduli), 0) / divisor, jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def weighted_loss(
    logits: Array, y: Array, weights: Array, moduli: tuple[int, ...]
) -> tuple[Array, tuple[Array, Array]]:
    """L = Σ_q w_q CE_q, CE_q the mean cross-entropy of task q over the batch (Eq. 12).

    `logits` `[Σq, n]`, `y` `[n, tasks]`, `weights` `[tasks]`. Beside L, what `evaluate` returns. Its derivative is
    that by the logits.
    """
    losses, accuracies = evaluate(logits, y, moduli)
    return jnp.sum(weights * losses), (losses, accuracies)


def evaluate(logits: Array, y: Array, moduli: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean cross-entropy (nats) and accuracy of each task. `[tasks]`, `[tasks]`.

    A label that shares the largest logit with another class is wrong: a network that has died knows nothing.
    """
    losses, hits, _ = _compare(logits, y, jnp.zeros(len(moduli)), moduli)
    return jnp.mean(losses, axis=1), _share(hits)


def _compare(logits: Array, y: Array, factors: Array, moduli: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Every sample against its labels.

    Returns the cross-entropy `[tasks, n]`, whether the label has the largest logit, alone, `[tasks, n]`, and
    the gradient of each cross-entropy by its task's logits, times the task's factor, `[Σq, n]`.
    """
    task = np.repeat(np.arange(len(moduli)), moduli)  # of each row
    first_row = np.cumsum([0, *moduli[:-1]])
    label_logits = jnp.take_along_axis(logits, y.T + first_row[:, None], axis=0)  # [tasks, n]
    is_label = (np.arange(len(task)) - first_row[task])[:, None] == y.T[task]
    runner_up = _over_classes(jnp.maximum, jnp.where(is_label, -jnp.inf, logits), moduli)
    # The maximum of this task alone: logits of different tasks drift apart by more than float32's exponent.
    maximum = jnp.maximum(label_logits, runner_up)
    exp_others = jnp.where(is_label, 0, jnp.exp(logits - maximum[task]))
    exp_label = jnp.exp(label_logits - maximum)
    others = _over_classes(jnp.add, exp_others, moduli)
    # Where the label leads, exp_label is exactly 1, and log1p keeps what log(others + 1) would round away.
    losses = maximum - label_logits + jnp.log1p(others + (exp_label - 1))
    # At the label softmax − 1 would cancel; −Σ_others softmax is the same number and does not.
    # See Prieto et al., Grokking at the edge of numerical stability, arXiv 2501.04697.
    scale = factors[:, None] / (others + exp_label)
    gradients = jnp.where(is_label, (-others * scale)[task], exp_others * scale[task])
    return losses, label_logits > runner_up, gradients


def _over_classes(combine: Combine, a: Array, moduli: tuple[int, ...]) -> Array:
    """The rows of each task combined into one. `[Σq, n]` → `[tasks, n]`."""
    reduction = jnp.max if combine is jnp.maximum else jnp.sum
    return jnp.stack([reduction(_fold(combine, a[rows]), axis=0) for rows in task_slices(moduli)])


def _fold(combine: Combine, rows: Array) -> Array:
    """Eight rows that combine to the same: what is left is elementwise, and no slice is copied."""
    q, k = len(rows), 8
    if q < 2 * k:
        return rows
    folded = reduce(combine, [rows[i : i + k] for i in range(0, q - k + 1, k)])
    rest = rows[q - q % k :]
    return jnp.concatenate([combine(folded[: len(rest)], rest), folded[len(rest) :]])


def _share(hits: Array) -> Array:
    """How many of the samples are right, of 1, in every task. `[tasks, n]` → `[tasks]`."""
    # XLA divides by multiplying with 1/n, which makes 41 of 41 a little less than 1.
    return jnp.where(hits.all(1), 1, hits.mean(1))


def _forward_rule(
    logits: Array, y: Array, weights: Array, moduli: tuple[int, ...]
) -> tuple[tuple[Array, tuple[Array, Array]], Array]:
    losses, hits, gradients = _compare(logits, y, weights / logits.shape[1], moduli)
    means = jnp.mean(losses, axis=1)
    return (jnp.sum(weights * means), (means, _share(hits))), gradients


def _backward_rule(_: tuple[int, ...], gradients: Array, incoming: Any) -> tuple[Array, None, None]:
    return gradients * incoming[0], None, None


weighted_loss.defvjp(_forward_rule, _backward_rule)
