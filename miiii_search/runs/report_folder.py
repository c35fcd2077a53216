"""Reports of analyses as folders: a page, its figures and its numbers."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

from miiii_search.analysis import report
from miiii_search.analysis.catalogue import RUN_FIGURES, pictures, run_page
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.numbers import findings_to_json
from miiii_search.analysis.report import (
    FigureSpec,
    Page,
    RenderedFigure,
    draw,
    file_names,
    is_report,
    remove_missing,
    write,
)
from miiii_search.errors import MiiiiSearchError
from miiii_search.runs.output_files import writing
from miiii_search.runs.output_folder import OutputFolder, open_output
from miiii_search.runs.run_folder import SNAPSHOTS

MADE_BY = f"{report.MADE_BY} {version('miiii-search')}."

RUN_FIGURE_NAMES = [name for _, name, *_ in RUN_FIGURES]
"""Names of a run's pictures."""


def write_report(findings: Findings, out: Path) -> list[RenderedFigure]:
    """Draws the findings of a run and writes the page, the figures and the numbers; returns what was drawn.

    A report that is there is replaced, whole or not at all.

    Raises:
        MiiiiSearchError: The folder cannot be written, or holds files that are not of a report.
    """
    failures = list[str]()
    with open_report(out, RUN_FIGURE_NAMES) as output:
        figures = pictures(findings)
        drawn = draw(figures, on_failure=failures.append)
        publish(output, run_page(findings, failures, MADE_BY), figures, drawn, findings_to_json(findings))
    return drawn


def open_report(out: Path, names: Collection[str]) -> AbstractContextManager[OutputFolder]:
    """Holds the folder of a page and of the pictures with these names.

    Raises `MiiiiSearchError` if it cannot be written, or if it holds such files that are somebody else's.
    """

    def check(folder: Path) -> None:
        files = file_names(name for name in names if name != SNAPSHOTS)
        foreign = next((name for name in (*files, SNAPSHOTS) if os.path.lexists(folder / name)), None)
        if foreign and not is_report(folder) and (foreign != SNAPSHOTS or SNAPSHOTS in names):
            raise MiiiiSearchError(
                f"{folder / foreign} would be replaced, but is not part of a report of miiii-search; "
                "choose another --out"
            )

    return open_output(out, check)


def publish(
    output: OutputFolder, page: Page, figures: Sequence[FigureSpec], drawn: Sequence[RenderedFigure], numbers: object
) -> None:
    """Writes a report, in place of the one before. Raises `MiiiiSearchError`."""

    def replace() -> None:
        write(output.unfinished, page, figures, drawn, numbers)
        output.publish()
        remove_missing(output.path, figures, drawn)

    writing(output.path, replace)
