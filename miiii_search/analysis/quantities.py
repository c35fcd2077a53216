"""What runs are compared by, each quantity with its unit, its place in the paper, and what the paper prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from miiii_search.analysis.attention import DigitPreference, digit_preference
from miiii_search.analysis.circuits import NEEDED_DROP, accuracy_lost, harmonic_offsets, transient_frequencies
from miiii_search.analysis.embeddings import Embeddings
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.neurons import Neurons
from miiii_search.analysis.scores import accuracies, grid_labels, training_mask

Values = tuple[float, ...]
"""One number, or one a head or a digit."""


@dataclass(frozen=True)
class Quantity:
    """How a row of the comparison is made."""

    key: str
    """Stable, for files."""
    name: str
    unit: str
    """Empty for a plain number."""
    reference: str
    """The paper's figure, table or section; empty for what the paper does not have."""
    form: str
    """A format of one value."""
    measure: Callable[[Findings], Values | None]
    """None: what it needs is missing. Empty: training has not come to it."""
    paper: Mapping[str, str] = field(default_factory=dict)
    """What the paper prints, by task, where it prints a number."""


def _of_embeddings(measure: Callable[[Embeddings], float]) -> Callable[[Findings], Values | None]:
    return lambda findings: None if findings.network is None else (measure(findings.network.embeddings),)


def _of_neurons(measure: Callable[[Neurons], float]) -> Callable[[Findings], Values | None]:
    return lambda findings: None if findings.network is None else (measure(findings.network.neurons),)


def _of_attention(measure: Callable[[DigitPreference], Sequence[float]]) -> Callable[[Findings], Values | None]:
    def values(findings: Findings) -> Values | None:
        if findings.network is None:
            return None
        return tuple(map(float, measure(digit_preference(findings.network.activations.attention))))

    return values


def _active_at_end(findings: Findings) -> Values | None:
    return None if findings.activity is None else tuple(map(float, findings.activity.counts()[-1]))


def _active_at_peak(findings: Findings) -> Values | None:
    if findings.activity is None:
        return None
    counts = findings.activity.counts()
    return tuple(map(float, counts[counts.sum(axis=1).argmax()]))


def _peak_epoch(findings: Findings) -> Values | None:
    if findings.activity is None or not (counts := findings.activity.counts()).any():
        return None  # where none was ever active there is no peak
    return (float(findings.activity.epochs[counts.sum(axis=1).argmax()]),)


def _memorised(findings: Findings) -> Values | None:
    return None if findings.milestones is None else _last(findings, findings.milestones.memorised)


def _generalised(findings: Findings) -> Values | None:
    return None if findings.milestones is None else _last(findings, findings.milestones.generalised)


def _last(findings: Findings, reached: Mapping[int, int | None]) -> Values:
    """When the last of the scored tasks came to it; empty while one has not."""
    epochs = [reached[q] for q in _scored(findings)]
    return () if None in epochs else (float(max(epoch for epoch in epochs if epoch is not None)),)


def _first_generalised(findings: Findings) -> Values | None:
    if findings.milestones is None:
        return None
    epochs = [epoch for q in _scored(findings) if (epoch := findings.milestones.generalised[q]) is not None]
    return (float(min(epochs)),) if epochs else ()


def _tasks_generalised(findings: Findings) -> Values | None:
    if findings.milestones is None:
        return None
    scored = _scored(findings)
    return (float(sum(findings.milestones.generalised[q] is not None for q in scored)), float(len(scored)))


def _scored(findings: Findings) -> list[int]:
    experiment = findings.run.experiment
    return [q for q, scored in zip(experiment.moduli, experiment.scored, strict=True) if scored]


def held_out_accuracy(findings: Findings) -> Values | None:
    """The mean over the scored tasks, at the end, on all that was not trained on; by what is there to tell it."""
    run, experiment = findings.run, findings.run.experiment
    if findings.network is not None:
        held_out = ~training_mask(experiment).ravel()
        y = grid_labels(experiment).reshape(len(experiment.moduli), -1)[:, held_out]
        per_task = accuracies(findings.network.activations.logits[:, held_out], y, experiment.moduli)
    elif run.metrics is not None:
        splits = [run.metrics.validation_accuracy, run.metrics.test_accuracy]
        per_task = np.average(splits, axis=0, weights=[experiment.n_validation, experiment.n_test])
    else:
        return None
    return (float(per_task[np.asarray(experiment.scored)].mean()),)


def _needed(findings: Findings) -> Values | None:
    if not findings.ablations:
        return None
    return (
        float(np.count_nonzero(accuracy_lost(findings.ablations[-1], findings.run.experiment.scored) >= NEEDED_DROP)),
    )


def _harmonic_offset(findings: Findings) -> Values | None:
    if not findings.ablations:
        return None
    offsets = harmonic_offsets(findings.ablations[-1], findings.run.experiment.moduli)
    return (float(np.median(list(offsets.values()))),) if offsets else None


def _transient(findings: Findings) -> Values | None:
    if len(findings.ablations) < 2:
        return None
    return (float(len(transient_frequencies(findings.ablations, findings.run.experiment.scored))),)


QUANTITIES = (
    Quantity(
        "position_correlation",
        "positions of x0 and x1: Pearson correlation",
        "",
        "Fig. 8",
        "{:z.2f}",
        _of_embeddings(lambda e: e.position_correlation),
        {"nanda": "0.95", "miiii": "−0.64"},
    ),
    Quantity(
        "singular_values_50",
        "token embedding: singular values to 50 % of the variance",
        "",
        "Fig. 9",
        "{:.0f}",
        _of_embeddings(lambda e: e.singular.rank_by_share[0.5]),
    ),
    Quantity(
        "singular_values_90",
        "token embedding: singular values to 90 % of the variance",
        "",
        "Fig. 9",
        "{:.0f}",
        _of_embeddings(lambda e: e.singular.rank_by_share[0.9]),
    ),
    Quantity(
        "embedding_frequencies",
        "token embedding: frequencies above the noise",
        "",
        "Fig. 12–14",
        "{:.0f}",
        _of_embeddings(lambda e: len(e.frequencies.active)),
    ),
    Quantity(
        "embedding_participation",
        "token embedding: frequencies the energy is spread over, (Σe)² / Σe²",
        "",
        "Fig. 12–14",
        "{:.1f}",
        _of_embeddings(lambda e: e.frequencies.participation),
    ),
    Quantity(
        "embedding_top_five",
        "token embedding: energy at the strongest five frequencies",
        "%",
        "Fig. 12",
        "{:.0f}",
        _of_embeddings(lambda e: 100 * e.frequencies.share(5)),
    ),
    Quantity(
        "neurons_two_frequencies",
        "neurons: variance at the dominant frequency of each digit, median",
        "%",
        "Fig. 15, 16",
        "{:.0f}",
        _of_neurons(lambda n: 100 * n.median(n.explained)),
    ),
    Quantity(
        "neurons_one_frequency",
        "neurons: variance at one frequency for both digits, median",
        "%",
        "Fig. 15, 16",
        "{:.0f}",
        _of_neurons(lambda n: 100 * n.median(n.single_explained)),
    ),
    Quantity(
        "active_at_end",
        "neurons: active frequencies at the end, of x0 / x1",
        "",
        "Fig. 17, Table 3",
        "{:.0f}",
        _active_at_end,
        {"miiii": "10"},
    ),
    Quantity(
        "active_at_peak",
        "neurons: active frequencies when they were most, of x0 / x1",
        "",
        "Fig. 17, Table 3",
        "{:.0f}",
        _active_at_peak,
        {"miiii": "18"},
    ),
    Quantity(
        "active_peak_epoch",
        "neurons: when that was",
        "epoch",
        "Fig. 17, Table 3",
        "{:,.0f}",
        _peak_epoch,
        {"miiii": "16,384"},
    ),
    Quantity(
        "attention_preference",
        "attention: preference of one digit, whichever it is, mean over the heads",
        "",
        "Fig. 19",
        "{:z.2f}",
        _of_attention(lambda a: [a.strength]),
    ),
    Quantity(
        "attention_preference_by_head",
        "attention: mean of (a0 − a1) / (a0 + a1) by head, 1 for x0 alone, −1 for x1 alone",
        "",
        "Fig. 19",
        "{:z.2f}",
        _of_attention(lambda a: list(a.mean)),
    ),
    Quantity(
        "attention_variation_by_head",
        "attention: standard deviation of that over the grid, by head",
        "",
        "Fig. 19",
        "{:z.2f}",
        _of_attention(lambda a: list(a.variation)),
    ),
    Quantity("memorised", "all scored tasks memorised", "epoch", "Fig. 6", "{:,.0f}", _memorised),
    Quantity(
        "first_generalised", "first scored task generalised", "epoch", "Fig. 6, 20", "{:,.0f}", _first_generalised
    ),
    Quantity(
        "generalised",
        "all scored tasks generalised",
        "epoch",
        "Fig. 6, 20",
        "{:,.0f}",
        _generalised,
        {"miiii": "about 40,000"},
    ),
    Quantity(
        "tasks_generalised",
        "scored tasks generalised / there are",
        "",
        "Fig. 6, 20",
        "{:.0f}",
        _tasks_generalised,
        {"miiii": "29 / 29"},
    ),
    Quantity(
        "held_out_accuracy",
        "accuracy held out, mean over the scored tasks",
        "%",
        "Fig. 6, 20",
        "{:.1f}",
        lambda findings: None if (a := held_out_accuracy(findings)) is None else (100 * a[0],),
        {"miiii": "100"},
    ),
    Quantity(
        "frequencies_needed",
        f"embedding frequencies without which that falls by {100 * NEEDED_DROP:.0f} points or more",
        "",
        "",
        "{:.0f}",
        _needed,
    ),
    Quantity(
        "harmonic_offset",
        "their distance to the nearest j·p/q, of p/q, median over the tasks (chance: 0.25)",
        "",
        "",
        "{:.2f}",
        _harmonic_offset,
    ),
    Quantity(
        "frequencies_gone",
        "embedding frequencies needed once and not at the end",
        "",
        "section 5",
        "{:.0f}",
        _transient,
    ),
)
"""The rows, in the order of the paper."""
