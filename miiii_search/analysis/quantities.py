"""The quantities by which runs are compared: names, units, sources in the paper, and the paper's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from miiii_search.analysis import measurements
from miiii_search.analysis.circuits import NEEDED_DROP
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.measurements import Values


@dataclass(frozen=True)
class Quantity:
    """One row of the comparison."""

    key: str
    """Name in files, which does not change between versions."""
    name: str
    """Name for readers."""
    unit: str
    """Empty for a plain number."""
    source: str
    """The paper's figure, table or section; empty if the paper does not contain the quantity."""
    number_format: str
    """Format string for one value."""
    measure: Callable[[Findings], Values | None]
    """Computes the values from the findings of a run; see `measurements`."""
    paper: Mapping[str, str] = field(default_factory=dict)
    """Values printed in the paper, by task."""


QUANTITIES = (
    Quantity(
        "position_correlation",
        "position embeddings of x0 and x1: Pearson correlation",
        "",
        "Fig. 8",
        "{:z.2f}",
        measurements.of_embeddings(lambda e: e.position_correlation),
        {"nanda": "0.95", "miiii": "−0.64"},
    ),
    Quantity(
        "singular_values_50",
        "token embedding: singular values that hold 50 % of the variance",
        "",
        "Fig. 9",
        "{:.0f}",
        measurements.of_embeddings(lambda e: e.singular.rank_by_share[0.5]),
    ),
    Quantity(
        "singular_values_90",
        "token embedding: singular values that hold 90 % of the variance",
        "",
        "Fig. 9",
        "{:.0f}",
        measurements.of_embeddings(lambda e: e.singular.rank_by_share[0.9]),
    ),
    Quantity(
        "embedding_frequencies",
        "token embedding: frequencies above the noise threshold",
        "",
        "Fig. 12–14",
        "{:.0f}",
        measurements.of_embeddings(lambda e: len(e.frequencies.active)),
    ),
    Quantity(
        "embedding_participation",
        "token embedding: participation ratio of the frequencies, (Σe)² / Σe²",
        "",
        "Fig. 12–14",
        "{:.1f}",
        measurements.of_embeddings(lambda e: e.frequencies.participation),
    ),
    Quantity(
        "embedding_top_five",
        "token embedding: energy at the five strongest frequencies",
        "%",
        "Fig. 12",
        "{:.0f}",
        measurements.of_embeddings(lambda e: 100 * e.frequencies.energy_share(5)),
    ),
    Quantity(
        "neurons_two_frequencies",
        "neurons: variance at the dominant frequency of each digit, median",
        "%",
        "Fig. 15, 16",
        "{:.0f}",
        measurements.of_neurons(lambda n: 100 * n.median(n.explained)),
    ),
    Quantity(
        "neurons_one_frequency",
        "neurons: variance at one frequency for both digits, median",
        "%",
        "Fig. 15, 16",
        "{:.0f}",
        measurements.of_neurons(lambda n: 100 * n.median(n.single_explained)),
    ),
    Quantity(
        "active_at_end",
        "neurons: active frequencies at the end, of x0 / x1",
        "",
        "Fig. 17, Table 3",
        "{:.0f}",
        measurements.active_frequencies_at_end,
        {"miiii": "10"},
    ),
    Quantity(
        "active_at_peak",
        "neurons: largest number of active frequencies, of x0 / x1",
        "",
        "Fig. 17, Table 3",
        "{:.0f}",
        measurements.active_frequencies_at_peak,
        {"miiii": "18"},
    ),
    Quantity(
        "active_peak_epoch",
        "neurons: epoch of the largest number of active frequencies",
        "epoch",
        "Fig. 17, Table 3",
        "{:,.0f}",
        measurements.peak_epoch,
        {"miiii": "16,384"},
    ),
    Quantity(
        "attention_preference",
        "attention: preference for either digit, mean over the heads",
        "",
        "Fig. 19",
        "{:z.2f}",
        measurements.of_attention(lambda a: [a.strength]),
    ),
    Quantity(
        "attention_preference_by_head",
        "attention: mean of (a0 − a1) / (a0 + a1) by head; 1 is x0 only, −1 is x1 only",
        "",
        "Fig. 19",
        "{:z.2f}",
        measurements.of_attention(lambda a: list(a.mean)),
    ),
    Quantity(
        "attention_variation_by_head",
        "attention: standard deviation of (a0 − a1) / (a0 + a1) over all inputs, by head",
        "",
        "Fig. 19",
        "{:z.2f}",
        measurements.of_attention(lambda a: list(a.variation)),
    ),
    Quantity("memorised", "all scored tasks memorised", "epoch", "Fig. 6", "{:,.0f}", measurements.memorised_epoch),
    Quantity(
        "first_generalised",
        "first scored task generalised",
        "epoch",
        "Fig. 6, 20",
        "{:,.0f}",
        measurements.first_generalised_epoch,
    ),
    Quantity(
        "generalised",
        "all scored tasks generalised",
        "epoch",
        "Fig. 6, 20",
        "{:,.0f}",
        measurements.generalised_epoch,
        {"miiii": "about 40,000"},
    ),
    Quantity(
        "tasks_generalised",
        "scored tasks: generalised / all",
        "",
        "Fig. 6, 20",
        "{:.0f}",
        measurements.generalised_tasks,
        {"miiii": "29 / 29"},
    ),
    Quantity(
        "held_out_accuracy",
        "held-out accuracy, mean over the scored tasks",
        "%",
        "Fig. 6, 20",
        "{:.1f}",
        lambda findings: None if (a := measurements.held_out_accuracy(findings)) is None else (100 * a[0],),
        {"miiii": "100"},
    ),
    Quantity(
        "frequencies_needed",
        f"needed embedding frequencies: held-out accuracy falls by {100 * NEEDED_DROP:.0f} points or more without one",
        "",
        "",
        "{:.0f}",
        measurements.needed_frequencies,
    ),
    Quantity(
        "harmonic_offset",
        "needed embedding frequencies: distance to the nearest j·p/q in units of p/q, median over tasks (chance: 0.25)",
        "",
        "",
        "{:.2f}",
        measurements.median_harmonic_offset,
    ),
    Quantity(
        "frequencies_gone",
        "embedding frequencies needed earlier, but not at the end",
        "",
        "section 5",
        "{:.0f}",
        measurements.transient_frequency_count,
    ),
)
"""The rows of the comparison, in the order of the paper."""
