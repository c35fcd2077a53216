"""Which part of a network which task needs: what accuracy is lost when the part is taken out.

A part is a frequency of the digits' embedding, an attention head, or the neurons of one dominant frequency. To take it
out is to put its mean over the inputs in its place, so that what follows still gets what it is used to.
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
"""Of those held out, drawn by the data's seed: 19 times of 20 an accuracy is within two points of that on all."""

NEEDED_DROP = 0.02
"""A loss of mean accuracy that is more than the samples' luck."""

TRANSIENT_SHARE = 0.25
"""A part that helped is gone where so little of its greatest effect is left."""


LEAST_SPACING = 3.0
"""Closer, and every whole frequency is next to a multiple."""


@dataclass(frozen=True)
class Ablations:
    """Changes of accuracy on samples held out, negative where the part was needed. Tasks in the order of `moduli`."""

    epoch: int
    accuracy: NDArray[np.float64]  # [tasks], with nothing taken out
    frequencies: NDArray[np.float64]  # [(p − 1) / 2, tasks], of the embedding of both digits
    heads: NDArray[np.float64]  # [heads, tasks]
    groups: NDArray[np.float64]  # [(p − 1) / 2, tasks], the neurons whose dominant frequency of x0 it is
    group_sizes: NDArray[np.intp]  # [(p − 1) / 2]


def ablate(experiment: Experiment, weights: Weights, epoch: int, samples: int = ABLATION_SAMPLES) -> Ablations:
    """Takes out each part in turn. `epoch` is kept for the figures."""
    p = experiment.p
    held_out = np.flatnonzero(~training_mask(experiment))
    chosen = np.random.default_rng([experiment.data_seed, 2]).permutation(held_out)[:samples]
    x, y = grid(p)[chosen], grid_labels(experiment).reshape(-1, p * p)[:, chosen]
    whole = forward(weights, grid(p))
    evaluator = _Evaluator(weights, x, y, experiment.moduli)
    base = evaluator.accuracy(weights)
    found, logits = analyze_neurons(whole.neurons, p), whole.logits[:, chosen]
    surplus = whole.neurons[:, chosen] - whole.neurons.mean(axis=1, keepdims=True)
    members = [_members(found, k) for k in range(1, n_frequencies(p) + 1)]
    head_means = whole.head_output.mean(axis=2)
    return Ablations(
        epoch,
        base,
        np.stack([evaluator.accuracy(without_frequency(weights, k)) for k in range(1, n_frequencies(p) + 1)]) - base,
        np.stack([evaluator.accuracy(weights, _without_head(h, head_means)) for h in range(n_heads(weights))]) - base,
        np.stack(
            [evaluator.without_neurons(logits, surplus, of_group) if len(of_group) else base for of_group in members]
        )
        - base,
        np.asarray([len(of_group) for of_group in members]),
    )


def without_frequency(weights: Weights, k: int) -> Weights:
    """The weights with the embedding of the digits rid of cos and sin of frequency `k`."""
    token = weights["token_embedding"]
    return {**weights, "token_embedding": np.concatenate([without_frequencies(token[:-1], [k]), token[-1:]])}


def accuracy_lost(ablations: Ablations, scored: Sequence[bool]) -> NDArray[np.float64]:
    """How much mean accuracy over the scored tasks is lost without each frequency `[(p − 1) / 2]`."""
    lost: NDArray[np.float64] = -ablations.frequencies[:, np.asarray(scored)].mean(axis=1)
    return lost


def harmonic_offsets(ablations: Ablations, moduli: Sequence[int]) -> dict[int, float]:
    """By modulus, how far the frequencies that a task needs lie from those of its own period.

    A remainder modulo q repeats every q steps of a digit, which over p digits is a frequency of p/q and its multiples,
    j·p/q, none of them whole. The distance of a needed frequency to the nearest is given as a share of the p/q between
    two of them, in the mean over needed frequencies weighted by the accuracy lost without each: 0 is on them, 1/4 is
    chance. Of tasks with p/q ≥ `LEAST_SPACING` that need any frequency at all.
    """
    count = len(ablations.frequencies)
    p, k = 2 * count + 1, np.arange(1, count + 1)
    offsets = {}
    for task, q in enumerate(moduli):
        lost = np.maximum(-ablations.frequencies[:, task] - NEEDED_DROP, 0)
        if p / q >= LEAST_SPACING and lost.any():
            multiples = np.arange(1, q) * p / q  # those above p/2 are the same ones from the other end
            distance = np.abs(k[:, None] - multiples).min(axis=1) * q / p
            offsets[q] = float((distance * lost).sum() / lost.sum())
    return offsets


def transient_frequencies(through_training: Sequence[Ablations], scored: Sequence[bool]) -> dict[int, int]:
    """Frequencies that were needed once and are not at the end, with the epoch at which they were needed most."""
    gone = _transient(through_training, [accuracy_lost(ablations, scored) for ablations in through_training])
    return {index + 1: epoch for index, epoch in gone.items()}


def transient_heads(through_training: Sequence[Ablations], scored: Sequence[bool]) -> dict[int, int]:
    """The same of the heads, the first of which is 0."""
    chosen = np.asarray(scored)
    return _transient(through_training, [-ablations.heads[:, chosen].mean(axis=1) for ablations in through_training])


def _transient(through_training: Sequence[Ablations], losses: Sequence[NDArray[np.float64]]) -> dict[int, int]:
    """By index in `losses`, one array a look."""
    if not losses:
        return {}
    lost = np.stack(losses)  # [looks, parts]
    peak = lost.max(axis=0)
    gone = np.flatnonzero((peak >= NEEDED_DROP) & (lost[-1] <= TRANSIENT_SHARE * peak))
    return {int(part): through_training[int(lost[:, part].argmax())].epoch for part in gone}


class _Evaluator:
    """Accuracy of each task on chosen samples."""

    def __init__(self, weights: Weights, x: NDArray[np.intp], y: Labels, moduli: Sequence[int]) -> None:
        self._weights, self._x, self._y, self._moduli = weights, x, y, moduli

    def accuracy(self, weights: Weights, head_output: Hook | None = None) -> NDArray[np.float64]:
        hooks = {"head_output": head_output} if head_output else {}
        return accuracies(forward(weights, self._x, hooks).logits, self._y, self._moduli)

    def without_neurons(self, logits: Floats, surplus: Floats, group: NDArray[np.intp]) -> NDArray[np.float64]:
        """Of logits less what the group's neurons write beyond their mean, since all that follows is linear."""
        write = self._weights["feed_forward_out"][group] @ self._weights["unembedding"]  # [group, Σq]
        written = write.T @ surplus[group]
        return accuracies(np.subtract(logits, written, out=written), self._y, self._moduli)


def _members(neurons: Neurons, k: int) -> NDArray[np.intp]:
    return np.flatnonzero(neurons.alive & (neurons.frequency[:, 0] == k))


def _without_head(head: int, means: Floats) -> Hook:
    """`means` `[heads, d_head]`, over the grid."""

    def replace(head_output: Floats) -> Floats:
        changed = head_output.copy()
        changed[head] = means[head][:, None]
        return changed

    return replace
