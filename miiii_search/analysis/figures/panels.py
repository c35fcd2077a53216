"""Panels for several runs next to each other, each with its run's name above it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style

PANELS_PER_ROW = 4
"""Largest number of panels next to each other on a page."""

LETTERS_PER_INCH = 12
"""Approximate number of letters per inch of 8-point text."""


def create_panels(n: int, height: float, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """Create a figure with one panel per run, in rows of at most `PANELS_PER_ROW`.

    Args:
        n: Number of panels.
        height: Height of a panel with its title, in inches.
        sharex: Whether all panels share their x axis.

    Returns:
        The figure and its `n` panels.
    """
    columns = min(n, PANELS_PER_ROW)
    rows = -(-n // columns)
    figure = style.new_figure(style.PAGE_WIDTH if columns > 2 else style.COLUMN_WIDTH, rows * height + 0.5)
    panels = figure.subplots(rows, columns, sharex=sharex, sharey=True, squeeze=False).ravel()
    for unused in panels[n:]:
        unused.set_axis_off()
    for lowest in panels[max(n - columns, 0) : n]:  # some of these are above an unused one
        lowest.tick_params(labelbottom=True)
    return figure, list(panels[:n])


def label_shared_axes(figure: Figure, x: str, y: str) -> None:
    """Set one label for the x axes of all panels, and one for their y axes."""
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)


def wrap_name(name: str, panels: int) -> str:
    """Break a name into lines that fit above a panel.

    Args:
        name: A name from `escape_text`.
        panels: Number of panels next to each other.
    """
    width = style.COLUMN_WIDTH / panels if panels <= 2 else (style.PAGE_WIDTH - 1) / panels
    lines = textwrap.wrap(name.replace(r"\$", "$"), max(int(width * LETTERS_PER_INCH), 6))
    return "\n".join(lines).replace("$", r"\$")


def legend_columns(labels: Sequence[str]) -> int:
    """Return the number of legend entries that fit next to each other on a page."""
    longest = max(map(len, labels), default=1) + 6  # including the line sample
    return int(max(1, min(len(labels), style.PAGE_WIDTH * LETTERS_PER_INCH // longest)))
