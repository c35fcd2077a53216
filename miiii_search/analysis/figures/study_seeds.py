"""Differences between the seeds of a configuration, with one row per configuration and one dot per seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_style import OUTCOME_COLOURS, display_name
from miiii_search.analysis.study_summary import SeedSpread, StudySummary
from miiii_search.experiment.text import format_value

MAX_CONFIGURATIONS = 30
"""Number of configurations shown, the best ones. They fill a page."""

STRIP_RATIO = 1.5
"""Width of the strip for unsolved seeds on the logarithmic axis.

It reaches from the last epoch to this multiple of it.
"""


def epochs_to_solve_by_seed(summary: StudySummary) -> Figure | None:
    """Draw the epochs to solve of every seed of the best configurations.

    Returns None if no configuration has two seeds that have ended.
    """
    rows = [spread for spread in summary.seed_spreads if spread.ended > 1][:MAX_CONFIGURATIONS]
    if not rows:
        return None
    figure = style.new_figure(style.PAGE_WIDTH, 0.9 + 0.2 * len(rows))
    axes = figure.subplots()
    solved = [(epoch, k) for k, spread in enumerate(rows) for epoch in spread.epochs_to_solve]
    dots: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "none", "alpha": 0.8, "zorder": 3}
    axes.plot(*_columns(solved), color=OUTCOME_COLOURS["solved"], label="solved seed", **dots)
    crosses: dict[str, Any] = {"marker": "x", "markersize": 4, "linestyle": "none", "clip_on": False}
    axes.plot(
        *_columns(_unsolved(rows, summary.epochs)), color=OUTCOME_COLOURS["failed"], label="unsolved seed", **crosses
    )
    medians = [(spread.median, k) for k, spread in enumerate(rows) if spread.median is not None]
    bars: dict[str, Any] = {"marker": "|", "markersize": 11, "markeredgewidth": 1.5, "linestyle": "none", "zorder": 4}
    axes.plot(*_columns(medians), color="black", label="median", **bars)
    for k, spread in enumerate(rows):
        if len(spread.epochs_to_solve) > 1:
            axes.plot([spread.epochs_to_solve[0], spread.epochs_to_solve[-1]], [k, k], color="0.8", zorder=1)
        share = f"{len(spread.epochs_to_solve)}/{spread.seeds}"
        axes.text(1.01, k, share, va="center", fontsize=6, transform=axes.get_yaxis_transform())
    _set_axes(axes, summary, rows)
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def _unsolved(rows: Sequence[SeedSpread], epochs: int) -> list[tuple[float, float]]:
    """Return positions for unsolved seeds, side by side in the strip at the right edge, so that they can be counted."""
    counts = [spread.ended - len(spread.epochs_to_solve) for spread in rows]
    step = STRIP_RATIO ** (1 / (max(counts) + 1)) if max(counts) else 1.0
    return [(epochs * step ** (i + 1), k) for k, count in enumerate(counts) for i in range(count)]


def _set_axes(axes: Axes, summary: StudySummary, rows: Sequence[SeedSpread]) -> None:
    style.set_log_epoch_axis(axes)
    first = min((spread.epochs_to_solve[0] for spread in rows if spread.epochs_to_solve), default=summary.epochs // 2)
    axes.set(xlim=(max(first, 1) / 1.15, summary.epochs * STRIP_RATIO), xlabel="epochs to solve")
    low, _ = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= summary.epochs])
    axes.spines["bottom"].set_bounds(low, summary.epochs)
    axes.axvline(summary.epochs, color="0.8", linewidth=0.8, zorder=0)
    axes.set(yticks=range(len(rows)), yticklabels=_labels(rows), ylim=(len(rows) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0, labelsize=6)


def _labels(rows: Sequence[SeedSpread]) -> list[str]:
    """Return the hyperparameters in which the configurations differ; all of them if there is one configuration."""
    known = dict.fromkeys(name for spread in rows for name in spread.point)
    names = [name for name in known if len({spread.point.get(name) for spread in rows}) > 1] or list(known)
    return [
        ", ".join(f"{display_name(name)} {format_value(spread.point[name])}" for name in names if name in spread.point)
        for spread in rows
    ]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the x and y coordinates of points."""
    array = np.array(points, np.float64).reshape(len(points), 2)
    return array[:, 0], array[:, 1]
