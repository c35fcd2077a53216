"""Common style of the figures of a study: names of hyperparameters, and colours and markers of outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from miiii_search.analysis.figures import style
from miiii_search.analysis.study_summary import SearchDimension, StudySummary, TrialSummary

OUTCOME_COLOURS = {
    "pruned": "0.62",
    "waiting": "0.9",
    "not solved": style.OKABE_ITO[4],
    "failed": style.OKABE_ITO[1],
    "running": style.OKABE_ITO[2],
    "solved": style.OKABE_ITO[0],
}
"""Colour of each outcome, in the order in which curves are drawn, so that solved ones are on top."""

DISPLAY_NAMES = {
    "grokfast_lambda": "λ",
    "grokfast_alpha": "α",
    "weight_decay": "weight decay",
    "d_model": "width d",
    "learning_rate": "learning rate",
    "n_heads": "heads",
    "train_fraction": "training share",
    "dropout_mask": "dropout mask",
    "moduli": "tasks q",
}
"""Names of hyperparameters in the paper. Other names are shown as they are."""

MAX_VECTOR_CURVES = 200
"""Number of curves up to which they are vectors in an SVG. With more the file would have megabytes."""

MAX_PANEL_LEVELS = 6
"""Largest number of levels of a dimension by which panels are arranged."""


def display_name(name: str) -> str:
    """Return the name of a hyperparameter for axes and legends."""
    return DISPLAY_NAMES.get(name, name)


def level_title(dimension: SearchDimension, level: int, on_two_lines: bool = False) -> str:
    """Return the title of a panel, or of a row of panels.

    Args:
        dimension: The dimension.
        level: Index of the level.
        on_two_lines: Whether to break the line after the name. A bin of a range always takes two lines.
    """
    name, label = display_name(dimension.name), dimension.labels[level]
    if dimension.is_range:
        return f"{name}\n{label}"
    return f"{name}\n= {label}" if on_two_lines else f"{name} = {label}"


def first_epoch(summary: StudySummary) -> int:
    """Return the first epoch of all curves."""
    return max(min((min(trial.curve) for trial in summary.trials if trial.curve), default=1), 1)


def in_drawing_order(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Return the trials that have a curve, in the order of `OUTCOME_COLOURS`."""
    order = list(OUTCOME_COLOURS)
    return sorted((t for t in trials if t.curve), key=lambda t: (order.index(t.outcome), t.number))


def add_outcome_legend(figure: Figure, summary: StudySummary) -> None:
    """Add a legend above all panels, with the outcomes that occur and their numbers."""
    handles = [
        Line2D(
            [],
            [],
            color=OUTCOME_COLOURS[name],
            linewidth=2,
            marker=outcome_marker(name),
            markersize=4,
            label=f"{name} ({count})",
        )
        for name, count in summary.counts.items()
        if count and name != "waiting"
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def outcome_marker(outcome: str) -> str:
    """Return the marker at the end of a curve, which distinguishes outcomes without colours."""
    return {"solved": "o", "failed": "x", "pruned": "|"}.get(outcome, "")


def panel_dimensions(summary: StudySummary, max_count: int) -> list[SearchDimension]:
    """Return up to `max_count` of the most important dimensions that have few enough levels for panels."""
    return [d for d in summary.dimensions_by_importance() if len(d.labels) <= MAX_PANEL_LEVELS][:max_count]
