"""Folders that hold a report: a page, its figures and its numbers."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

from miiii_search.analysis.findings import Findings
from miiii_search.analysis.numbers import findings_to_json
from miiii_search.analysis.report import files
from miiii_search.analysis.report.page import Page
from miiii_search.analysis.report.rendering import FigureSpec, RenderedFigure, render_figures
from miiii_search.analysis.report.run_report import RUN_FIGURE_NAMES, run_figures, run_page
from miiii_search.errors import MiiiiSearchError
from miiii_search.runs.output_files import output_errors
from miiii_search.runs.output_folder import OutputFolder, open_output
from miiii_search.runs.run_folder import SNAPSHOTS

MADE_BY = f"{files.MADE_BY} {version('miiii-search')}."
"""Footer of every page."""


def write_report(findings: Findings, folder: Path) -> list[RenderedFigure]:
    """Draw the findings of a run and write the page, the figures and the numbers.

    An earlier report in the folder is replaced as a whole or not at all.

    Args:
        findings: The analysis of the run.
        folder: The folder, which is created if it does not exist.

    Returns:
        The figures that could be drawn. The page names those that could not.

    Raises:
        MiiiiSearchError: The folder cannot be written, or contains files that are not part of a report.
    """
    failures = list[str]()
    with open_report(folder, RUN_FIGURE_NAMES) as output:
        figures = run_figures(findings)
        rendered = render_figures(figures, on_failure=failures.append)
        publish_report(output, run_page(findings, failures, MADE_BY), figures, rendered, findings_to_json(findings))
    return rendered


def open_report(folder: Path, figure_names: Collection[str]) -> AbstractContextManager[OutputFolder]:
    """Return a context manager that reserves a folder for a report.

    Args:
        folder: The folder.
        figure_names: Names of the report's figures, and `SNAPSHOTS` if snapshots will be written.

    Raises:
        MiiiiSearchError: The folder cannot be written, or contains files of these names that are not part of a report.
    """

    def check(folder: Path) -> None:
        names = files.report_file_names(name for name in figure_names if name != SNAPSHOTS)
        names += [SNAPSHOTS] * (SNAPSHOTS in figure_names)
        foreign = next((name for name in names if os.path.lexists(folder / name)), None)
        if foreign is not None and not files.is_report(folder):
            raise MiiiiSearchError(
                f"{folder / foreign} would be replaced, but is not part of a report of miiii-search; "
                "choose another --out"
            )

    return open_output(folder, check)


def publish_report(
    output: OutputFolder,
    page: Page,
    figures: Sequence[FigureSpec],
    rendered: Sequence[RenderedFigure],
    numbers: object,
) -> None:
    """Write a report and replace the earlier one in the folder.

    Args:
        output: The folder, from `open_report`.
        page: The text of the page.
        figures: All figures of the report. Files of those that were not rendered are removed.
        rendered: The figures that could be drawn.
        numbers: The content of `numbers.json`.

    Raises:
        MiiiiSearchError: A file cannot be written.
    """
    with output_errors(output.path):
        files.write_report_files(output.unfinished, page, figures, rendered, numbers)
        output.publish()
        files.remove_stale_figures(output.path, figures, rendered)
