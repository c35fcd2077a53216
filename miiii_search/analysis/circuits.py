"""Ablations: how much accuracy each task loses without one part of the network.

A part is a frequency of the digits' embedding, an attention head, or the neurons with a common dominant frequency.
Ablation replaces its activation by the mean over the inputs, so that later layers still see their usual average input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.fourier import n_frequencies, without_frequencies
from miiii_search.analysis.network import Floats, Hook, Weights, forward, grid, n_heads
from miiii_search.analysis.neurons import Neurons, analyze_neurons
from miiii_search.analysis.scores import Labels, accuracies, grid_labels, training_mask
from miiii_search.experiment.spec import Experiment

ABLATION_SAMPLES = 2000
"""Number of held-out samples, drawn with the data's seed.

In 19 of 20 draws the accuracy is within two percentage points of the accuracy on all held-out samples.
"""

NEEDED_DROP = 0.02
"""Loss of mean accuracy from which a part counts as needed. Smaller losses can be due to the choice of samples."""

TRANSIENT_SHARE = 0.25
"""A part is transient if its final effect is at most this share of its largest effect."""

MIN_HARMONIC_SPACING = 3.0
"""Smallest p/q for `harmonic_offsets`. With smaller ones every whole frequency is close to a harmonic."""


@dataclass(frozen=True)
class Ablations:
    """Changes of accuracy on held-out samples at one epoch, in the order of the experiment's moduli.

    Negative values mean that the part was needed.
    """

    epoch: int
    accuracy: NDArray[np.float64]  # [tasks], of the whole network
    frequencies: NDArray[np.float64]  # [(p − 1) / 2, tasks], of the embedding of both digits
    heads: NDArray[np.float64]  # [heads, tasks]
    groups: NDArray[np.float64]  # [(p − 1) / 2, tasks], of the neurons with this dominant frequency of x0
    group_sizes: NDArray[np.intp]  # [(p − 1) / 2]


def ablate(experiment: Experiment, weights: Weights, epoch: int, samples: int = ABLATION_SAMPLES) -> Ablations:
    """Ablate each part of a network in turn.

    Args:
        experiment: The experiment.
        weights: The weights at the epoch.
        epoch: The epoch, for the figures.
        samples: Number of held-out samples on which accuracy is measured.
    """
    p = experiment.p
    held_out = np.flatnonzero(~training_mask(experiment))
    chosen = np.random.default_rng([experiment.data_seed, 2]).permutation(held_out)[:samples]
    x, y = grid(p)[chosen], grid_labels(experiment).reshape(-1, p * p)[:, chosen]
    whole = forward(weights, grid(p))
    evaluator = _Evaluator(weights, x, y, experiment)
    base = evaluator.accuracy(weights)
    frequencies = [evaluator.accuracy(without_frequency(weights, k)) for k in range(1, n_frequencies(p) + 1)]
    head_means = whole.head_output.mean(axis=2)
    heads = [evaluator.accuracy(weights, _without_head(head, head_means)) for head in range(n_heads(weights))]
    found, logits = analyze_neurons(whole.neurons, p), whole.logits[:, chosen]
    deviations = whole.neurons[:, chosen] - whole.neurons.mean(axis=1, keepdims=True)
    groups = [_neurons_of_frequency(found, k) for k in range(1, n_frequencies(p) + 1)]
    without_groups = [evaluator.without_neurons(logits, deviations, group) if len(group) else base for group in groups]
    return Ablations(
        epoch=epoch,
        accuracy=base,
        frequencies=np.stack(frequencies) - base,
        heads=np.stack(heads) - base,
        groups=np.stack(without_groups) - base,
        group_sizes=np.asarray([len(group) for group in groups]),
    )


def without_frequency(weights: Weights, k: int) -> Weights:
    """Return the weights without cos and sin of frequency `k` in the embedding of the digits."""
    token = weights["token_embedding"]
    return {**weights, "token_embedding": np.concatenate([without_frequencies(token[:-1], [k]), token[-1:]])}


def accuracy_lost(ablations: Ablations, scored: Sequence[bool]) -> NDArray[np.float64]:
    """Return the mean accuracy over the scored tasks that is lost without each frequency `[(p − 1) / 2]`."""
    lost: NDArray[np.float64] = -ablations.frequencies[:, np.asarray(scored)].mean(axis=1)
    return lost


def harmonic_offsets(ablations: Ablations, moduli: Sequence[int]) -> dict[int, float]:
    """Compute how far the frequencies that a task needs are from the harmonics of its period.

    A remainder modulo q has period q in each digit. Over p digits, this is the frequency p/q and its multiples j·p/q,
    none of which is a whole number. The offset of a needed frequency is its distance to the nearest harmonic, divided
    by their spacing p/q. It is averaged over the needed frequencies, weighted by the accuracy lost without each. An
    offset of 0 means that they lie on harmonics; 1/4 is expected by chance.

    Args:
        ablations: The ablations.
        moduli: The modulus of each task.

    Returns:
        The offset by modulus, for tasks with p/q ≥ `MIN_HARMONIC_SPACING` that need at least one frequency.
    """
    count = len(ablations.frequencies)
    p, k = 2 * count + 1, np.arange(1, count + 1)
    offsets = {}
    for task, q in enumerate(moduli):
        lost = np.maximum(-ablations.frequencies[:, task] - NEEDED_DROP, 0)
        if p / q >= MIN_HARMONIC_SPACING and lost.any():
            multiples = np.arange(1, q) * p / q  # multiples above p/2 are aliases of those below
            distance = np.abs(k[:, None] - multiples).min(axis=1) * q / p
            offsets[q] = float((distance * lost).sum() / lost.sum())
    return offsets


def transient_frequencies(ablations: Sequence[Ablations], scored: Sequence[bool]) -> dict[int, int]:
    """Find the frequencies that were needed at some time but not at the end.

    Args:
        ablations: Ablations through training, ascending by epoch.
        scored: Whether each task is scored.

    Returns:
        By frequency, the epoch at which it was needed most.
    """
    transient = _transient(ablations, [accuracy_lost(one, scored) for one in ablations])
    return {index + 1: epoch for index, epoch in transient.items()}


def transient_heads(ablations: Sequence[Ablations], scored: Sequence[bool]) -> dict[int, int]:
    """Find the attention heads that were needed at some time but not at the end, as `transient_frequencies` does."""
    chosen = np.asarray(scored)
    return _transient(ablations, [-one.heads[:, chosen].mean(axis=1) for one in ablations])


def _transient(ablations: Sequence[Ablations], losses: Sequence[NDArray[np.float64]]) -> dict[int, int]:
    """Return, by index of the part, the epoch at which a transient part was needed most.

    Args:
        ablations: Ablations through training, ascending by epoch.
        losses: The accuracy lost without each part `[parts]`, at each of these epochs.
    """
    if not losses:
        return {}
    lost = np.stack(losses)  # [epochs, parts]
    peak = lost.max(axis=0)
    transient = np.flatnonzero((peak >= NEEDED_DROP) & (lost[-1] <= TRANSIENT_SHARE * peak))
    return {int(part): ablations[int(lost[:, part].argmax())].epoch for part in transient}


class _Evaluator:
    """Accuracy of each task on some of the samples."""

    def __init__(self, weights: Weights, x: NDArray[np.intp], y: Labels, experiment: Experiment) -> None:
        self._weights, self._x, self._y = weights, x, y
        self._of_task = (experiment.classes, experiment.balanced)

    def accuracy(self, weights: Weights, head_output: Hook | None = None) -> NDArray[np.float64]:
        hooks = {"head_output": head_output} if head_output else {}
        return accuracies(forward(weights, self._x, hooks).logits, self._y, *self._of_task)

    def without_neurons(self, logits: Floats, deviations: Floats, group: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the accuracy without some neurons, from the logits of the whole network.

        All that follows the neurons is linear, so their contribution beyond its mean is subtracted from the logits.
        """
        write = self._weights["feed_forward_out"][group] @ self._weights["unembedding"]  # [group, Σq]
        written = write.T @ deviations[group]
        return accuracies(np.subtract(logits, written, out=written), self._y, *self._of_task)


def _neurons_of_frequency(neurons: Neurons, k: int) -> NDArray[np.intp]:
    """Return the neurons whose dominant frequency of x0 is `k`."""
    return np.flatnonzero(neurons.alive & (neurons.frequency[:, 0] == k))


def _without_head(head: int, means: Floats) -> Hook:
    """Return a hook that replaces a head's output by its mean. `means` `[heads, d_head]` are over the grid."""

    def replace(head_output: Floats) -> Floats:
        changed = head_output.copy()
        changed[head] = means[head][:, None]
        return changed

    return replace
