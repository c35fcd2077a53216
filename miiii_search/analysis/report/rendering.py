"""Figures before and after they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from matplotlib.figure import Figure

from miiii_search.analysis.figures.style import figure_bytes, figure_style
from miiii_search.errors import reason

DataT = TypeVar("DataT")


@dataclass(frozen=True)
class FigureSpec:
    """A figure that can be drawn, with the text around it."""

    name: str
    """Stem of its files' names."""
    section: str
    """Heading of the page under which the figure stands."""
    title: str
    caption: str
    source: str
    """The corresponding figure or section of the paper; empty if there is none."""
    draw: Callable[[], Figure | None]
    """Function that draws the figure, called within `figure_style()`. Returns None if the data for it is missing."""


@dataclass(frozen=True)
class FigureTemplate(Generic[DataT]):
    """A figure that a kind of report contains, whatever data it is drawn from."""

    name: str
    """Stem of its files' names."""
    section: str
    title: str
    source: str
    """The corresponding figure or section of the paper; empty if there is none."""
    caption: str
    draw: Callable[[DataT], Figure | None]

    def bind(self, data: DataT) -> FigureSpec:
        """Return the figure for specific data."""
        return FigureSpec(self.name, self.section, self.title, self.caption, self.source, partial(self.draw, data))


@dataclass(frozen=True)
class RenderedFigure:
    """A figure as the contents of its files."""

    spec: FigureSpec
    png: bytes
    svg: bytes


def render_figures(
    figures: Iterable[FigureSpec],
    on_step: Callable[[str], None] = lambda title: None,
    on_failure: Callable[[str], None] | None = None,
) -> list[RenderedFigure]:
    """Draw all figures for which there is data.

    Args:
        figures: The figures.
        on_step: Called with the title of each figure before it is drawn.
        on_failure: Called with a message for each figure that raises an exception. That figure is then left out.

    Returns:
        The figures that could be drawn, in their order.

    Raises:
        Exception: A figure could not be drawn and `on_failure` is None.
    """
    rendered = []
    for spec in figures:
        on_step(spec.title)
        try:
            with figure_style():
                figure = spec.draw()
                if figure is not None:
                    rendered.append(RenderedFigure(spec, figure_bytes(figure, "png"), figure_bytes(figure, "svg")))
        except Exception as error:
            if on_failure is None:
                raise
            on_failure(f"the figure {spec.name} could not be drawn: {reason(error)}")
    return rendered
