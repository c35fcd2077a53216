"""The files of a report: one PNG and one SVG per figure, the numbers as JSON, and the page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from miiii_search.analysis.report.page import Page, render_html
from miiii_search.analysis.report.rendering import FigureSpec, RenderedFigure
from miiii_search.files import write_file

NUMBERS = "numbers.json"
"""The numbers behind the figures."""
PAGE = "report.html"
"""The page with all figures and their captions."""

MADE_BY = "Made by miiii-search"
"""Start of every page's footer, by which `is_report` recognizes a report."""


def report_file_names(figures: Iterable[str]) -> list[str]:
    """Return the names of all files that a report with figures of these names may contain."""
    return [NUMBERS, PAGE, *(f"{name}.{kind}" for name in figures for kind in ("png", "svg"))]


def is_report(folder: Path) -> bool:
    """Return whether the page in a folder was written by `write_report_files`."""
    try:
        return MADE_BY in (folder / PAGE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def remove_stale_figures(folder: Path, figures: Iterable[FigureSpec], rendered: Sequence[RenderedFigure]) -> None:
    """Remove the files of figures that could not be drawn this time.

    Raises:
        OSError: A file cannot be removed.
    """
    for name in {spec.name for spec in figures} - {figure.spec.name for figure in rendered}:
        for kind in ("png", "svg"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def write_report_files(
    folder: Path, page: Page, figures: Iterable[FigureSpec], rendered: Sequence[RenderedFigure], numbers: object
) -> list[Path]:
    """Write `NAME.png` and `NAME.svg` of each figure, `numbers.json` and `report.html`.

    Args:
        folder: The folder, which is created if it does not exist.
        page: The text of the page.
        figures: All figures of the report. Files of those that were not rendered are removed.
        rendered: The figures that could be drawn.
        numbers: The content of `numbers.json`.

    Returns:
        The paths of the files written.

    Raises:
        OSError: A file cannot be written.
        ValueError: `numbers` contains infinity or NaN.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale_figures(folder, figures, rendered)
    files = {
        NUMBERS: (json.dumps(numbers, allow_nan=False) + "\n").encode(),
        PAGE: render_html(page, rendered).encode(),
    }
    for figure in rendered:
        files[f"{figure.spec.name}.png"] = figure.png
        files[f"{figure.spec.name}.svg"] = figure.svg
    for name, data in files.items():
        write_file(folder / name, data)
    return [folder / name for name in files]
