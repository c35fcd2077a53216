"""Panels for several runs beside one another, each with its name above."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style

PANELS_PER_ROW = 4
"""Panels beside one another on a page."""

LETTERS_PER_INCH = 12
"""Of 8 point type."""


def create_panels(n: int, height: float, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A panel a run, each so many inches high with its title, at most `PANELS_PER_ROW` beside one another."""
    columns = min(n, PANELS_PER_ROW)
    rows = -(-n // columns)
    figure = style.new_figure(style.PAGE_WIDTH if columns > 2 else style.COLUMN_WIDTH, rows * height + 0.5)
    panels = figure.subplots(rows, columns, sharex=sharex, sharey=True, squeeze=False).ravel()
    for spare in panels[n:]:
        spare.set_axis_off()
    for lowest in panels[max(n - columns, 0) : n]:  # some of them stand above a spare one
        lowest.tick_params(labelbottom=True)
    return figure, list(panels[:n])


def label_shared_axes(figure: Figure, x: str, y: str) -> None:
    """One label for the panels' axes of either kind."""
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)


def wrap_name(name: str, beside: int) -> str:
    """Wrap an escaped name to the width of a panel with `beside` panels in its row."""
    width = style.COLUMN_WIDTH / beside if beside <= 2 else (style.PAGE_WIDTH - 1) / beside
    lines = textwrap.wrap(name.replace(r"\$", "$"), max(int(width * LETTERS_PER_INCH), 6))
    return "\n".join(lines).replace("$", r"\$")


def legend_columns(labels: Sequence[str]) -> int:
    """How many entries of a legend fit beside one another on a page."""
    longest = max(map(len, labels), default=1) + 6  # with the line
    return int(max(1, min(len(labels), style.PAGE_WIDTH * LETTERS_PER_INCH // longest)))
