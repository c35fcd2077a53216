"""Loss and accuracy in which every class of a task counts the same, however rare it is."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.tasks import class_shares, guessing_losses
from miiii_search.training.loss import Array, evaluate, task_slices, weighted_loss


class BalancedLoss:
    """The cross-entropy with adjusted logits, and the mean accuracy over the classes.

    ln π is added to every logit, where π is the share of its class among all samples. This is the logit adjustment of
    Menon et al. (2021), arXiv 2007.07314, section 5: the logits as they are then minimise the balanced error. A weight
    for each class would have less and less effect on a network that fits its training samples (arXiv 1812.03372).

    Args:
        experiment: The experiment, whose task has rare classes.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._classes = experiment.classes
        with np.errstate(divide="ignore"):  # a class that never occurs is left out of the softmax
            log_shares = np.log(np.concatenate(class_shares(experiment)))
        self._adjustment = jnp.asarray(log_shares[:, None], jnp.float32)
        self.relative_weights = np.log(self._classes) / guessing_losses(experiment)
        """Factors of the tasks' weights, after which every loss is 1 for a network that knows the shares alone."""

    def weighted_loss(
        self, logits: Array, y: Array, weights: Array, _: tuple[int, ...]
    ) -> tuple[Array, tuple[Array, Array]]:
        """Return what `loss.weighted_loss` returns, of the adjusted logits and with balanced accuracies."""
        total, (losses, _accuracies) = weighted_loss(logits + self._adjustment, y, weights, self._classes)
        return total, (losses, balanced_accuracy(logits, y, self._classes))

    def evaluate(self, logits: Array, y: Array, _: tuple[int, ...]) -> tuple[Array, Array]:
        """Return what `loss.evaluate` returns, of the adjusted logits and with balanced accuracies."""
        losses, _accuracies = evaluate(logits + self._adjustment, y, self._classes)
        return losses, balanced_accuracy(logits, y, self._classes)


def balanced_accuracy(logits: Array, y: Array, classes: tuple[int, ...]) -> Array:
    """Return the accuracy of each task, averaged over the classes that occur, `[tasks]`.

    A sample counts as correct only if no other class shares the largest logit.

    Args:
        logits: The logits, `[Σq, n]`.
        y: The labels, `[n, tasks]`.
        classes: The number of classes of each task.
    """
    return jnp.stack([_of_task(logits[rows], y[:, task]) for task, rows in enumerate(task_slices(classes))])


def _of_task(logits: Array, y: Array) -> Array:
    is_label = jnp.arange(len(logits))[:, None] == y  # [K, n]
    others = jnp.max(jnp.where(is_label, -jnp.inf, logits), axis=0)
    hits = is_label & (jnp.max(jnp.where(is_label, logits, -jnp.inf), axis=0) > others)
    samples, right = is_label.sum(axis=1), hits.sum(axis=1)
    occurs = samples > 0
    # As a product with 1/n, XLA's quotient of equal numbers may be slightly less than 1.
    recall = jnp.where(right == samples, 1.0, right / jnp.maximum(samples, 1))
    return jnp.where(jnp.all(right == samples), 1.0, jnp.sum(jnp.where(occurs, recall, 0)) / jnp.sum(occurs))
