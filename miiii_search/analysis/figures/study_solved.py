"""Epochs to solve over the search space: λ against weight decay, in panels by dropout if the study varies these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_style import MAX_PANEL_LEVELS, display_name, level_title
from miiii_search.analysis.study_summary import SearchDimension, StudySummary, TrialSummary

PREFERRED_DIMENSIONS = ("grokfast_lambda", "weight_decay", "dropout")
"""Dimensions of the y axis, the x axis and the panels, if the study searches over all three."""

UNSOLVED_COLOUR = "0.8"


def epochs_to_solve_heatmap(summary: StudySummary) -> Figure | None:
    """Draw the epochs to solve over two dimensions, in panels by a third.

    A cell of a grid shows the median over its solved trials, and how many of its trials were solved if there are
    several. Over ranges every trial is a dot. Returns None if no dimension varies or no trial has ended.
    """
    down, across, panel = _choose(summary)
    ended = [trial for trial in summary.trials if trial.has_ended]
    if across is None or not ended:
        return None
    panels = len(panel.labels) if panel else 1
    columns = min(panels, 4)
    rows = -(-panels // columns)
    cells_down = len(down.labels) if down else 1
    height = min(0.9 + rows * max(0.55 + 0.36 * cells_down, 1.3), 9.0)
    figure = style.new_figure(
        style.PAGE_WIDTH if panels > 1 else style.COLUMN_WIDTH, height + (0.3 if panels == 1 else 0.0)
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    normalize = _normalize(ended)
    is_scatter = across.is_range or (down is not None and down.is_range)
    for k, axes in enumerate(grid.flat):
        if k >= panels:
            axes.set_axis_off()
            continue
        panel_trials = [t for t in ended if panel is None or panel.level(t.point.get(panel.name)) == k]
        (_draw_dots if is_scatter else _draw_cells)(axes, panel_trials, across, down, normalize)
        if panel:
            axes.set_title(level_title(panel, k))
    figure.supxlabel(display_name(across.name), fontsize=8)
    if down:
        name = display_name(down.name)
        figure.supylabel(name, fontsize=8, rotation=90 if len(name) > 1 else 0)
    if any(trial.outcome == "solved" for trial in ended):
        _colour_bar(figure, grid, normalize)
    _add_legend(figure, grid, ended, is_scatter)
    return figure


def _choose(summary: StudySummary) -> tuple[SearchDimension | None, SearchDimension | None, SearchDimension | None]:
    """Return the dimensions of the y axis, the x axis and the panels.

    They are `PREFERRED_DIMENSIONS` if the study varies all of them, else the most important ones.
    """
    varied = {d.name: d for d in summary.dimensions_by_importance()}
    preferred = [varied[name] for name in PREFERRED_DIMENSIONS if name in varied]
    chosen = preferred if len(preferred) == len(PREFERRED_DIMENSIONS) else list(varied.values())[:3]
    panel = next((d for d in reversed(chosen) if len(d.labels) <= MAX_PANEL_LEVELS), None) if len(chosen) == 3 else None
    left = [d for d in chosen if d is not panel][:2]
    if len(left) < 2:
        return None, left[0] if left else None, panel
    return left[0], left[1], panel


def _normalize(ended: Sequence[TrialSummary]) -> LogNorm:
    epochs = [t.epochs_to_solve for t in ended if t.epochs_to_solve is not None] or [1]
    return LogNorm(max(min(epochs), 1), max(*epochs, min(epochs) * 1.1, 1.1))


def _draw_cells(
    axes: Axes,
    trials: Sequence[TrialSummary],
    across: SearchDimension,
    down: SearchDimension | None,
    normalize: LogNorm,
) -> None:
    rows, columns = len(down.labels) if down else 1, len(across.labels)
    for i in range(rows):
        for j in range(columns):
            cell_trials = [t for t in trials if across.level(t.point.get(across.name)) == j]
            if down:
                cell_trials = [t for t in cell_trials if down.level(t.point.get(down.name)) == i]
            _draw_cell(axes, i, j, cell_trials, normalize)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5))
    axes.set_xticks(range(columns), across.labels)
    axes.set_yticks(range(rows), down.labels if down else [""])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_cell(axes: Axes, i: int, j: int, trials: Sequence[TrialSummary], normalize: LogNorm) -> None:
    solved = [t.epochs_to_solve for t in trials if t.epochs_to_solve is not None]
    style_options: dict[str, Any] = {"facecolor": UNSOLVED_COLOUR}
    if solved:
        style_options = {"facecolor": colormaps[style.SEQUENTIAL](normalize(float(np.median(solved))))}
    elif not trials:
        style_options = {"facecolor": "white", "edgecolor": "0.8", "hatch": "////", "linewidth": 0}
    axes.bar(j, 0.94, width=0.94, bottom=i - 0.47, **style_options)
    lines = [_short(float(np.median(solved)))] if solved else []
    if len(trials) > 1:
        lines.append(f"{len(solved)}/{len(trials)}")
    is_dark = bool(solved) and float(normalize(float(np.median(solved)))) < 0.6
    axes.text(j, i, "\n".join(lines), ha="center", va="center", fontsize=6, color="white" if is_dark else "black")


def _draw_dots(
    axes: Axes,
    trials: Sequence[TrialSummary],
    across: SearchDimension,
    down: SearchDimension | None,
    normalize: LogNorm,
) -> None:
    for solved in (False, True):
        shown = [t for t in trials if (t.epochs_to_solve is not None) == solved]
        coordinates = np.array([[_coordinate(across, t), _coordinate(down, t)] for t in shown]).reshape(len(shown), 2)
        if solved:
            epochs = [t.epochs_to_solve for t in shown]
            colours: Any = {"c": epochs, "norm": normalize, "cmap": style.SEQUENTIAL, "edgecolor": "black"}
        else:
            colours = {"color": UNSOLVED_COLOUR}
        axes.scatter(coordinates[:, 0], coordinates[:, 1], 22, linewidth=0.4, **colours)
    for axis, dimension in ((axes.xaxis, across), (axes.yaxis, down)):
        if dimension is None:
            axis.set_ticks([])
        elif dimension.is_range and dimension.log:
            axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        elif not dimension.is_range:
            axis.set_ticks(range(len(dimension.labels)), dimension.labels)


def _coordinate(dimension: SearchDimension | None, trial: TrialSummary) -> float:
    """Return a trial's coordinate on an axis: its value for a range, or the index of its value for a list."""
    if dimension is None:
        return 0.0
    value = trial.point.get(dimension.name)
    if dimension.is_range:
        return float(value) if value is not None else math.nan
    level = dimension.level(value)
    return math.nan if level is None else level


def _colour_bar(figure: Figure, grid: Any, normalize: LogNorm) -> None:
    assert normalize.vmin is not None and normalize.vmax is not None
    scale = ScalarMappable(normalize, colormaps[style.SEQUENTIAL])
    bar = figure.colorbar(scale, ax=grid, label="epochs to solve", aspect=25)
    low, high = normalize.vmin, normalize.vmax
    ticks = [m * 10**k for k in range(9) for m in (1, 2, 5) if low <= m * 10**k <= high]
    if len(ticks) < 3:
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    bar.set_ticks(ticks, labels=[f"{tick:,.0f}" for tick in ticks])
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)


def _add_legend(figure: Figure, grid: Any, ended: Sequence[TrialSummary], is_scatter: bool) -> None:
    """Explain those texts and colours of the cells that occur."""
    handles = (
        [Patch(facecolor=UNSOLVED_COLOUR, label="not solved")] if any(t.epochs_to_solve is None for t in ended) else []
    )
    texts = [text.get_text() for axes in grid.flat for text in axes.texts]
    if not is_scatter and any(patch.get_hatch() for axes in grid.flat for patch in axes.patches):
        handles.append(Patch(facecolor="white", edgecolor="0.8", hatch="////", label="no trial has ended"))
    if any("/" in text for text in texts):
        handles.append(Patch(facecolor="none", label="median epochs to solve, solved trials / all trials"))
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))


def _short(epochs: float) -> str:
    """Return a number of epochs with at most four characters."""
    if epochs < 1000:
        return f"{epochs:.0f}"
    return f"{epochs / 1000:.1f}k" if epochs < 9950 else f"{epochs / 1000:.0f}k"
