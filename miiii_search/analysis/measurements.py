"""Functions that compute the quantities of the comparison from the findings of one run.

Each returns None if the data for it is missing, and an empty tuple if training has not reached it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from miiii_search.analysis.attention import DigitPreference, digit_preference
from miiii_search.analysis.circuits import NEEDED_DROP, accuracy_lost, harmonic_offsets, transient_frequencies
from miiii_search.analysis.embeddings import Embeddings
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.neurons import Neurons
from miiii_search.analysis.scores import accuracies, grid_labels, training_mask

Values = tuple[float, ...]
"""A single number, or one number for each head or digit."""


def of_embeddings(measure: Callable[[Embeddings], float]) -> Callable[[Findings], Values | None]:
    """Return a function that applies `measure` to the embeddings of a run."""
    return lambda findings: None if findings.network is None else (measure(findings.network.embeddings),)


def of_neurons(measure: Callable[[Neurons], float]) -> Callable[[Findings], Values | None]:
    """Return a function that applies `measure` to the neurons of a run."""
    return lambda findings: None if findings.network is None else (measure(findings.network.neurons),)


def of_attention(measure: Callable[[DigitPreference], Sequence[float]]) -> Callable[[Findings], Values | None]:
    """Return a function that applies `measure` to the digit preference of a run's attention heads."""

    def values(findings: Findings) -> Values | None:
        if findings.network is None:
            return None
        return tuple(map(float, measure(digit_preference(findings.network.activations.attention))))

    return values


def active_frequencies_at_end(findings: Findings) -> Values | None:
    """Count the active frequencies of x0 and of x1 at the last recorded epoch."""
    return None if findings.activity is None else tuple(map(float, findings.activity.counts()[-1]))


def active_frequencies_at_peak(findings: Findings) -> Values | None:
    """Count the active frequencies of x0 and of x1 at the epoch at which their sum is largest."""
    if findings.activity is None:
        return None
    counts = findings.activity.counts()
    return tuple(map(float, counts[counts.sum(axis=1).argmax()]))


def peak_epoch(findings: Findings) -> Values | None:
    """Return the epoch with the most active frequencies; None if no frequency was ever active."""
    if findings.activity is None or not (counts := findings.activity.counts()).any():
        return None
    return (float(findings.activity.epochs[counts.sum(axis=1).argmax()]),)


def memorised_epoch(findings: Findings) -> Values | None:
    """Return the epoch at which the last scored task was memorised."""
    return None if findings.milestones is None else _last_epoch(findings, findings.milestones.memorised)


def generalised_epoch(findings: Findings) -> Values | None:
    """Return the epoch at which the last scored task generalised."""
    return None if findings.milestones is None else _last_epoch(findings, findings.milestones.generalised)


def _last_epoch(findings: Findings, reached: Mapping[int, int | None]) -> Values:
    """Return the latest epoch over the scored tasks; empty if one of them has none."""
    epochs = [reached[q] for q in _scored_moduli(findings)]
    return () if None in epochs else (float(max(epoch for epoch in epochs if epoch is not None)),)


def first_generalised_epoch(findings: Findings) -> Values | None:
    """Return the epoch at which the first scored task generalised."""
    if findings.milestones is None:
        return None
    epochs = [epoch for q in _scored_moduli(findings) if (epoch := findings.milestones.generalised[q]) is not None]
    return (float(min(epochs)),) if epochs else ()


def generalised_tasks(findings: Findings) -> Values | None:
    """Count the scored tasks that generalised, and all scored tasks."""
    if findings.milestones is None:
        return None
    scored = _scored_moduli(findings)
    return (float(sum(findings.milestones.generalised[q] is not None for q in scored)), float(len(scored)))


def _scored_moduli(findings: Findings) -> list[int]:
    experiment = findings.run.experiment
    return [q for q, scored in zip(experiment.task_moduli, experiment.scored, strict=True) if scored]


def held_out_accuracy(findings: Findings) -> Values | None:
    """Compute the final accuracy on all samples that were not trained on, averaged over the scored tasks.

    It is computed from the final weights, or from the recorded metrics if there are no weights.
    """
    run, experiment = findings.run, findings.run.experiment
    if findings.network is not None:
        held_out = ~training_mask(experiment).ravel()
        y = grid_labels(experiment).reshape(len(experiment.task_moduli), -1)[:, held_out]
        per_task = accuracies(
            findings.network.activations.logits[:, held_out], y, experiment.classes, experiment.balanced
        )
    elif run.metrics is not None:
        splits = [run.metrics.validation_accuracy, run.metrics.test_accuracy]
        per_task = np.average(splits, axis=0, weights=[experiment.n_validation, experiment.n_test])
    else:
        return None
    return (float(per_task[np.asarray(experiment.scored)].mean()),)


def needed_frequencies(findings: Findings) -> Values | None:
    """Count the frequencies of the embedding without which accuracy falls by at least `NEEDED_DROP`."""
    if not findings.ablations:
        return None
    lost = accuracy_lost(findings.ablations[-1], findings.run.experiment.scored)
    return (float(np.count_nonzero(lost >= NEEDED_DROP)),)


def median_harmonic_offset(findings: Findings) -> Values | None:
    """Return the median over the tasks of `harmonic_offsets`; None if it is defined for no task."""
    if not findings.ablations:
        return None
    offsets = harmonic_offsets(findings.ablations[-1], findings.run.experiment.task_moduli)
    return (float(np.median(list(offsets.values()))),) if offsets else None


def transient_frequency_count(findings: Findings) -> Values | None:
    """Count the frequencies that were needed at some snapshot but not at the end."""
    if len(findings.ablations) < 2:
        return None
    return (float(len(transient_frequencies(findings.ablations, findings.run.experiment.scored))),)
