"""How the figures of a study name hyperparameters and colour what became of trials."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from miiii_search.analysis.figures import style
from miiii_search.analysis.study_summary import SearchDimension, StudySummary, TrialSummary

COLOURS = {
    "pruned": "0.62",
    "waiting": "0.9",
    "not solved": style.OKABE_ITO[4],
    "failed": style.OKABE_ITO[1],
    "running": style.OKABE_ITO[2],
    "solved": style.OKABE_ITO[0],
}
"""In the order in which curves are drawn: solved ones on top."""

NAMES = {
    "grokfast_lambda": "λ",
    "grokfast_alpha": "α",
    "weight_decay": "weight decay",
    "d_model": "width d",
    "learning_rate": "learning rate",
    "n_heads": "heads",
    "train_fraction": "training share",
    "dropout_mask": "dropout mask",
}
"""The paper's; of the others the name will do."""

MANY_CURVES = 200
"""More than these are drawn as pixels even in an SVG, which would be megabytes otherwise."""

MOST_LEVELS = 6
"""Of a dimension that panels are laid out by."""


def display_name(name: str) -> str:
    """A hyperparameter as axes have it."""
    return NAMES.get(name, name)


def level_title(dimension: SearchDimension, level: int, on_two_lines: bool = False) -> str:
    """Over a panel, or beside a row of them; a bin of a range always takes two lines."""
    name, label = display_name(dimension.name), dimension.labels[level]
    if dimension.is_range:
        return f"{name}\n{label}"
    return f"{name}\n= {label}" if on_two_lines else f"{name} = {label}"


def first_epoch(summary: StudySummary) -> int:
    """Of all curves."""
    return max(min((min(trial.curve) for trial in summary.trials if trial.curve), default=1), 1)


def in_drawing_order(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Trials with a curve, those that matter most last."""
    order = list(COLOURS)
    return sorted((t for t in trials if t.curve), key=lambda t: (order.index(t.outcome), t.number))


def add_outcome_legend(figure: Figure, summary: StudySummary) -> None:
    """Above all panels: the outcomes that occur and how often."""
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[name],
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
    """At the end of a curve, so that outcomes are told apart without colours."""
    return {"solved": "o", "failed": "x", "pruned": "|"}.get(outcome, "")


def panel_dimensions(summary: StudySummary, most: int) -> list[SearchDimension]:
    """The dimensions that decide most, of those with few enough levels for panels."""
    return [d for d in summary.dimensions_by_importance() if len(d.labels) <= MOST_LEVELS][:most]
