"""Learning curves of all trials of a study, in panels by the most important hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_style import (
    MAX_VECTOR_CURVES,
    OUTCOME_COLOURS,
    add_outcome_legend,
    first_epoch,
    in_drawing_order,
    level_title,
    outcome_marker,
    panel_dimensions,
)
from miiii_search.analysis.study_summary import SearchDimension, StudySummary, TrialSummary

FEW_IN_A_PANEL = 8
"""Number of curves in a panel up to which their markers are large."""


def curves_by_level(summary: StudySummary) -> Figure | None:
    """Draw all learning curves, in panels by the levels of the two most important dimensions.

    Returns None if no trial has reported yet.
    """
    if not any(trial.curve for trial in summary.trials):
        return None
    chosen = panel_dimensions(summary, 2)
    # The dimension with more levels goes across, where there is more room.
    across, down = ([*sorted(chosen, key=lambda d: -len(d.labels)), None, None])[:2]
    columns, rows = (len(d.labels) if d else 1 for d in (across, down))
    figure = style.new_figure(style.PAGE_WIDTH, min(0.75 + rows * max(1.05, 2.2 - 0.5 * rows), 9.0))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    shown = 0
    for (i, j), axes in np.ndenumerate(grid):
        panel_trials = [t for t in summary.trials if _is_at(t, down, i) and _is_at(t, across, j)]
        shown += len(panel_trials)
        _draw_curves(axes, panel_trials, is_raster=len(summary.trials) > MAX_VECTOR_CURVES)
        ended = [t for t in panel_trials if t.has_ended]
        solved = sum(t.outcome == "solved" for t in ended)
        axes.text(0.04, 0.95, f"{solved} of {len(ended)} solved", transform=axes.transAxes, va="top", fontsize=6)
        if across and i == 0:
            axes.set_title(level_title(across, j))
        if down and j == columns - 1:
            title = level_title(down, i, on_two_lines=True)
            annotation = {"xycoords": "axes fraction", "va": "center", "ha": "left"}
            axes.annotate(title, (1.03, 0.5), rotation=270, multialignment="center", **annotation)
    _set_axes(grid[0, 0], summary, columns)
    others = len(summary.trials) - shown
    figure.supxlabel(
        "epoch" + f" ({others} trials at values outside of the lists are not shown)" * bool(others), fontsize=8
    )
    figure.supylabel("validation accuracy", fontsize=8)
    add_outcome_legend(figure, summary)
    return figure


def _set_axes(axes: Axes, summary: StudySummary, columns: int) -> None:
    """Set limits and ticks, which all panels share."""
    axes.set(xlim=(first_epoch(summary), summary.epochs * 1.2), ylim=(-0.03, 1.06), yticks=[0, 0.5, 1])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=6 if columns < 3 else 4 if columns < 5 else 3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:,.0f}"))
    axes.xaxis.set_minor_locator(LogLocator(base=2, numticks=32))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    if columns > 3:
        axes.tick_params(axis="x", labelsize=6)


def _is_at(trial: TrialSummary, dimension: SearchDimension | None, level: int) -> bool:
    """Return whether a trial is at a level of a dimension; always true if there is no dimension."""
    return dimension is None or dimension.level(trial.point.get(dimension.name)) == level


def _draw_curves(axes: Axes, trials: Sequence[TrialSummary], is_raster: bool) -> None:
    """Draw learning curves, with a marker at the end of each.

    They are one collection, since drawing separate lines takes ten times as long.
    """
    ordered = in_drawing_order(trials)
    lines = [np.column_stack([list(t.curve), list(t.curve.values())]) for t in ordered]
    colours = [OUTCOME_COLOURS[trial.outcome] for trial in ordered]
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=0.8, zorder=2, rasterized=is_raster))
    size = 3.0 if len(trials) <= FEW_IN_A_PANEL else 2.0
    for outcome, colour in OUTCOME_COLOURS.items():
        ends = [line[-1] for line, trial in zip(lines, ordered, strict=True) if trial.outcome == outcome]
        if ends and (marker := outcome_marker(outcome)):
            marks: dict[str, Any] = {"markersize": size, "linestyle": "none", "rasterized": is_raster}
            axes.plot(*np.transpose(ends), color=colour, marker=marker, **marks)
