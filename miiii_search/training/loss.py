"""The weighted cross-entropy (Eq. 12), with a gradient that is accurate in float32."""

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
    """Return the rows of each task among the Σq rows of the logits."""
    ends = np.cumsum(moduli)
    return [slice(int(end) - q, int(end)) for q, end in zip(moduli, ends, strict=True)]


def task_weights(moduli: tuple[int, ...], scored: tuple[bool, ...], reduction: str = "sum") -> Array:
    """Return the weight of each task in the loss, `[tasks]`.

    It is 1/ln q, the inverse of the cross-entropy of a uniform guess, or 0 for a task that is not scored.

    Args:
        moduli: The number of classes q of each task.
        scored: Whether each task is scored.
        reduction: `sum`, or `mean`, which divides by the number of all tasks, scored or not, as the public code does.
    """
    divisor = len(moduli) if reduction == "mean" else 1
    return jnp.asarray(np.where(scored, 1 / np.log(moduli), 0) / divisor, jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def weighted_loss(
    logits: Array, y: Array, weights: Array, moduli: tuple[int, ...]
) -> tuple[Array, tuple[Array, Array]]:
    """Return L = Σ_q w_q CE_q, where CE_q is the mean cross-entropy of task q over the batch (Eq. 12).

    Only the logits have a derivative.

    Args:
        logits: The logits, `[Σq, n]`.
        y: The labels, `[n, tasks]`.
        weights: The weight of each task, `[tasks]`.
        moduli: The number of classes q of each task.

    Returns:
        The loss L, and cross-entropy and accuracy of each task as `evaluate` returns them.
    """
    losses, accuracies = evaluate(logits, y, moduli)
    return jnp.sum(weights * losses), (losses, accuracies)


def evaluate(logits: Array, y: Array, moduli: tuple[int, ...]) -> tuple[Array, Array]:
    """Return mean cross-entropy in nats and accuracy of each task, `[tasks]` each.

    A sample counts as correct only if no other class shares the largest logit. So a network whose logits are all equal
    has accuracy 0.

    Args:
        logits: The logits, `[Σq, n]`.
        y: The labels, `[n, tasks]`.
        moduli: The number of classes q of each task.
    """
    losses, hits, _ = _compare(logits, y, jnp.zeros(len(moduli)), moduli)
    return jnp.mean(losses, axis=1), _fraction(hits)


def _compare(logits: Array, y: Array, factors: Array, moduli: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Compare the logits of every sample with its labels.

    Returns:
        The cross-entropy, `[tasks, n]`. Whether the label alone has the largest logit, `[tasks, n]`. The gradient of
        each cross-entropy with respect to its task's logits, times the task's factor, `[Σq, n]`.
    """
    task = np.repeat(np.arange(len(moduli)), moduli)  # of each row
    first_row = np.cumsum([0, *moduli[:-1]])
    label_logits = jnp.take_along_axis(logits, y.T + first_row[:, None], axis=0)  # [tasks, n]
    is_label = (np.arange(len(task)) - first_row[task])[:, None] == y.T[task]
    runner_up = _over_classes(jnp.maximum, jnp.where(is_label, -jnp.inf, logits), moduli)
    # One maximum per task: logits of different tasks differ by more than exp can represent in float32.
    maximum = jnp.maximum(label_logits, runner_up)
    exp_others = jnp.where(is_label, 0, jnp.exp(logits - maximum[task]))
    exp_label = jnp.exp(label_logits - maximum)
    others = _over_classes(jnp.add, exp_others, moduli)
    # Where the label has the maximum, exp_label is exactly 1. log1p then keeps digits that log(others + 1) loses.
    losses = maximum - label_logits + jnp.log1p(others + (exp_label - 1))
    # At the label, softmax − 1 would cancel. −Σ_others softmax is the same number without cancellation.
    # See Prieto et al., Grokking at the edge of numerical stability, arXiv 2501.04697.
    scale = factors[:, None] / (others + exp_label)
    gradients = jnp.where(is_label, (-others * scale)[task], exp_others * scale[task])
    return losses, label_logits > runner_up, gradients


def _over_classes(combine: Combine, a: Array, moduli: tuple[int, ...]) -> Array:
    """Reduce the rows of each task to one: `[Σq, n]` to `[tasks, n]`."""
    reduction = jnp.max if combine is jnp.maximum else jnp.sum
    return jnp.stack([reduction(_fold(combine, a[rows]), axis=0) for rows in task_slices(moduli)])


def _fold(combine: Combine, rows: Array) -> Array:
    """Reduce many rows to eight with the same reduction. The steps are elementwise, so no slice is copied."""
    q, k = len(rows), 8
    if q < 2 * k:
        return rows
    folded = reduce(combine, [rows[i : i + k] for i in range(0, q - k + 1, k)])
    rest = rows[q - q % k :]
    return jnp.concatenate([combine(folded[: len(rest)], rest), folded[len(rest) :]])


def _fraction(hits: Array) -> Array:
    """Return the fraction of correct samples of each task: `[tasks, n]` to `[tasks]`."""
    # XLA divides by multiplying with 1/n, so that 41 of 41 would be slightly less than 1.
    return jnp.where(hits.all(1), 1, hits.mean(1))


def _forward_rule(
    logits: Array, y: Array, weights: Array, moduli: tuple[int, ...]
) -> tuple[tuple[Array, tuple[Array, Array]], Array]:
    losses, hits, gradients = _compare(logits, y, weights / logits.shape[1], moduli)
    means = jnp.mean(losses, axis=1)
    return (jnp.sum(weights * means), (means, _fraction(hits))), gradients


def _backward_rule(_: tuple[int, ...], gradients: Array, incoming: Any) -> tuple[Array, None, None]:
    return gradients * incoming[0], None, None


weighted_loss.defvjp(_forward_rule, _backward_rule)
