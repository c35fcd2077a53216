"""Learning curves of all trials of a study, with one small panel per configuration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_style import (
    MAX_VECTOR_CURVES,
    OUTCOME_COLOURS,
    add_outcome_legend,
    display_name,
    first_epoch,
    in_drawing_order,
    outcome_marker,
)
from miiii_search.analysis.study_summary import SearchDimension, StudySummary, TrialSummary

MAX_PANELS = 384
"""Largest number of panels, the size of Table 1's grid. On a page such a panel is a quarter of an inch wide."""

MANY_PANELS = 100
"""Number of panels above which lines are thinner."""

POINTS_PER_LETTER = 3.5
"""Approximate width of a letter of 6-point text, in points."""


def curves_by_configuration(summary: StudySummary) -> Figure | None:
    """Draw the learning curves of each configuration in a small panel.

    For a grid there is one panel per point, which replicates share. For other spaces there is one panel per trial, best
    first. Returns None if no trial has reported yet.
    """
    if not any(trial.curve for trial in summary.trials):
        return None
    layout = _grid_layout(summary) or _ranked_layout(summary)
    width = layout.columns[-1] + 1
    height_of_panel = float(np.clip(0.8 * (style.PAGE_WIDTH - 0.8) / width, 0.36, 0.8))
    height = height_of_panel * (layout.rows[-1] + 1) + 0.55 + 0.14 * len(layout.column_dimensions)
    figure = style.new_figure(style.PAGE_WIDTH, min(height, 9.5))
    axes = figure.subplots()
    _draw_panels(axes, summary, layout)
    axes.set(xlim=(0, width), ylim=(layout.rows[-1] + 1, 0))
    axes.set_axis_off()
    _nested_labels(axes, layout.column_dimensions, layout.columns, is_column=True)
    _nested_labels(axes, layout.row_dimensions, layout.rows, is_column=False)
    figure.supxlabel(
        f"each panel: epoch {first_epoch(summary):,} to {summary.epochs:,} (logarithmic) across, "
        f"validation accuracy 0 to 1 upwards{layout.note}",
        fontsize=7,
    )
    add_outcome_legend(figure, summary)
    return figure


@dataclass(frozen=True)
class _PanelLayout:
    """Positions of the panels, as coordinates of their upper left corners in units of a panel."""

    columns: tuple[float, ...]
    rows: tuple[float, ...]
    panels: dict[tuple[int, int], list[TrialSummary]]
    column_dimensions: tuple[SearchDimension, ...] = ()
    """Dimensions nested from left to right, outermost first."""
    row_dimensions: tuple[SearchDimension, ...] = ()
    """Dimensions nested from top to bottom, outermost first."""
    note: str = ""
    """Addition to the label of the figure."""
    has_numbers: bool = False
    """Whether panels show the number of their trial."""


def _grid_layout(summary: StudySummary) -> _PanelLayout | None:
    """Arrange the dimensions of a grid in nested rows and columns, the most important ones outermost.

    Returns None if the space is not a grid, or if there are too many panels.
    """
    order = summary.dimensions_by_importance()
    if any(d.is_range for d in summary.dimensions) or math.prod(len(d.labels) for d in order) > MAX_PANELS:
        return None
    sides = [
        (tuple(d for d in order if d in chosen), tuple(d for d in order if d not in chosen))
        for size in range(len(order) + 1)
        for chosen in itertools.combinations(order, size)
    ]

    def misfit(side: tuple[tuple[SearchDimension, ...], tuple[SearchDimension, ...]]) -> tuple[float, bool]:
        across, down = (math.prod(len(d.labels) for d in dimensions) for dimensions in side)
        return round(abs(math.log(across / down / 1.4)), 9), bool(order) and order[0] not in side[0]

    across, down = min(sides, key=misfit)
    panels: dict[tuple[int, int], list[TrialSummary]] = {}
    for row, column in itertools.product(*(range(len(_positions(side))) for side in (down, across))):
        panels[row, column] = []
    for trial in summary.trials:
        cell = _index(down, trial), _index(across, trial)
        if cell[0] is not None and cell[1] is not None:
            panels[cell[0], cell[1]].append(trial)
    others = len(summary.trials) - sum(map(len, panels.values()))
    note = f"; {others} trials at values outside of the lists are not shown" * bool(others)
    return _PanelLayout(_positions(across), _positions(down), panels, across, down, note)


def _ranked_layout(summary: StudySummary) -> _PanelLayout:
    """Arrange the trials with a curve by their objective, best first."""
    with_curve = [t for t in summary.trials if t.curve]
    ranked = sorted(with_curve, key=lambda t: (t.value is None, -(t.value or 0.0), t.number))
    shown = ranked[:MAX_PANELS]
    across = min(max(math.ceil(math.sqrt(1.4 * len(shown))), 4), 24)
    panels = {divmod(k, across): [trial] for k, trial in enumerate(shown)}
    note = ", best first" + f" (the best {len(shown)} of {len(ranked):,})" * (len(ranked) > len(shown))
    positions = tuple(np.arange(across) * 1.0), tuple(np.arange(-(-len(shown) // across)) * 1.0)
    return _PanelLayout(*positions, panels, note=note, has_numbers=True)


def _positions(dimensions: Sequence[SearchDimension]) -> tuple[float, ...]:
    """Return the positions of all combinations of nested dimensions, with wider gaps between the outer groups."""
    positions, position = list[float](), 0.0
    sizes = [len(d.labels) for d in dimensions]
    for k in range(math.prod(sizes)):
        for depth in range(len(sizes) - 1):
            inner = math.prod(sizes[depth + 1 :])
            if k and k % inner == 0:
                position += min(0.03 * math.prod(sizes), 0.5) / (depth + 1)
                break
        positions.append(position)
        position += 1
    return tuple(positions)


def _index(dimensions: Sequence[SearchDimension], trial: TrialSummary) -> int | None:
    """Return the index of a trial's combination of nested dimensions, or None if it is outside the lists."""
    index = 0
    for dimension in dimensions:
        level = dimension.level(trial.point.get(dimension.name))
        if level is None:
            return None
        index = index * len(dimension.labels) + level
    return index


def _draw_panels(axes: Axes, summary: StudySummary, layout: _PanelLayout) -> None:
    """Draw all panels into the same axes, since the layout of hundreds of axes would take minutes."""
    margin, first, is_small = 0.07, first_epoch(summary), len(layout.panels) > MANY_PANELS
    doublings = max(math.log2(summary.epochs / first), 1.0)
    frames: dict[str, list[Rectangle]] = {"0.95": [], "white": []}
    placed_trials: list[tuple[TrialSummary, float, float]] = []
    for (row, column), trials in layout.panels.items():
        x, y = layout.columns[column], layout.rows[row]
        frame = Rectangle((x + margin / 2, y + margin / 2), 1 - margin, 1 - margin)
        frames["0.95" if any(t.outcome != "waiting" for t in trials) else "white"].append(frame)
        placed_trials += [(trial, x, y) for trial in trials]
        if layout.has_numbers:
            axes.text(x + 2 * margin, y + 0.1, str(trials[0].number), fontsize=5, va="top", color="0.3")
    for colour, rectangles in frames.items():
        axes.add_collection(PatchCollection(rectangles, facecolor=colour, edgecolor="0.85", linewidth=0.4, zorder=0))
    position = {trial.number: (x, y) for trial, x, y in placed_trials}
    lines, colours, ends = [], [], dict[str, list[tuple[float, float]]]()
    for trial in in_drawing_order([trial for trial, _, _ in placed_trials]):
        x, y = position[trial.number]
        epochs = np.array(list(trial.curve), float)
        across = x + margin + (1 - 2 * margin) * np.log2(epochs / first) / doublings
        up = y + 1 - 1.5 * margin - (1 - 3 * margin) * np.array(list(trial.curve.values()))
        lines.append(np.column_stack([across, up]))
        colours.append(OUTCOME_COLOURS[trial.outcome])
        ends.setdefault(trial.outcome, []).append((across[-1], up[-1]))
    for outcome, at in ends.items():
        mark: dict[str, Any] = {
            "color": OUTCOME_COLOURS[outcome],
            "markersize": 2 if is_small else 3,
            "linestyle": "none",
        }
        axes.plot(*np.transpose(at), marker=outcome_marker(outcome), zorder=3, **mark)
    curves = LineCollection(lines, colors=colours, linewidths=0.8 if is_small else 1.0, zorder=2)
    curves.set_rasterized(len(lines) > MAX_VECTOR_CURVES)
    axes.add_collection(curves)


def _nested_labels(
    axes: Axes, dimensions: Sequence[SearchDimension], positions: Sequence[float], is_column: bool
) -> None:
    """Label the values below the columns or left of the rows, the innermost dimension nearest to the panels.

    Each line of labels has the name of its dimension.
    """
    offset = 4.0
    for depth in reversed(range(len(dimensions))):
        inner = math.prod(len(d.labels) for d in dimensions[depth + 1 :])
        centres = (np.array(positions) + 0.5).reshape(-1, inner).mean(axis=1)
        labels = [label for _ in range(len(centres)) for label in dimensions[depth].labels]
        longest = POINTS_PER_LETTER * max(map(len, labels))
        # Column labels that are wider than their columns are rotated, and all row labels but the innermost.
        is_rotated = longest > 430 / len(centres) if is_column else depth < len(dimensions) - 1
        thickness = longest if is_rotated == is_column else 7.0
        rotation: dict[str, Any] = {"rotation": 90 if is_rotated else 0}
        name, line = display_name(dimensions[depth].name), len(dimensions) - 1 - depth
        if is_column:
            for centre, label in zip(centres, labels, strict=False):
                _annotate(
                    axes,
                    label,
                    (centre, 0.0),
                    ("data", "axes fraction"),
                    (0, -offset),
                    ha="center",
                    va="top",
                    **rotation,
                )
            _annotate(axes, name, (0.0, 0.0), "axes fraction", (-4, -offset), ha="right", va="top")
        else:
            for centre, label in zip(centres, labels, strict=False):
                _annotate(
                    axes,
                    label,
                    (0.0, centre),
                    ("axes fraction", "data"),
                    (-offset, 0),
                    ha="right",
                    va="center",
                    **rotation,
                )
            # Each name has its own line. It starts above its values and extends to the right, where there is room.
            above = (-offset - thickness, 2 + 8 * line)
            _annotate(axes, name, (0.0, 1.0), "axes fraction", above, ha="left", va="bottom")
        offset += thickness + 4


def _annotate(
    axes: Axes, text: str, position: tuple[float, float], coordinates: Any, offset: tuple[float, float], **options: Any
) -> None:
    """Write text at an offset in points from a position."""
    axes.annotate(text, position, offset, coordinates, "offset points", fontsize=6, **options)
