"""The HTML page of a report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from miiii_search.analysis.report.rendering import RenderedFigure


@dataclass(frozen=True)
class Page:
    """The text of a report's page, without its figures."""

    title: str
    summary: str
    """One sentence below the title."""
    table: Sequence[tuple[str, str]]
    """Names and values."""
    remarks: Sequence[str]
    """Notes on what is missing and on how to read the results."""
    made_by: str
    """Footer."""
    grid: Sequence[Sequence[str]] = ()
    """A table with several columns; its first row is the header."""


def render_html(page: Page, figures: Sequence[RenderedFigure]) -> str:
    """Return the page as one HTML document.

    The document embeds the figures as PNG, so it needs no other file, no network and no script. All text is escaped.
    Figures of the same section must follow each other.
    """
    environment = Environment(
        loader=PackageLoader("miiii_search.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    environment.filters["anchor"] = _anchor
    sections = [(section, list(group)) for section, group in groupby(figures, lambda figure: figure.spec.section)]
    return environment.get_template("page.html.jinja").render(page=page, sections=sections)


def _anchor(section: str) -> str:
    """Return the HTML id of a section."""
    return "section-" + "".join(c if c.isalnum() else "-" for c in section.lower())
