"""The command `compare`: several runs in one table and in common figures, optionally next to reference curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from miiii_search.analysis.comparison import ComparisonTable, compare_runs
from miiii_search.analysis.findings import Findings, analyze
from miiii_search.analysis.numbers import findings_to_json
from miiii_search.analysis.reference import (
    SPLITS,
    ReferenceCurves,
    ReferenceDifferences,
    differences_from_reference,
    read_reference,
)
from miiii_search.analysis.report.comparison_report import (
    COMPARISON_FIGURE_NAMES,
    REFERENCE_FIGURE,
    comparison_figures,
    comparison_page,
)
from miiii_search.analysis.report.files import PAGE
from miiii_search.analysis.report.rendering import render_figures
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.cli.views.console import console, print_line, status_line
from miiii_search.cli.views.tables import Column, FittedTable
from miiii_search.errors import MiiiiSearchError
from miiii_search.runs.report_folder import MADE_BY, open_report, publish_report
from miiii_search.runs.run_folder import read_run

MAX_VALUES = 2
"""Rows with more values per run, such as one per attention head, are on the page but not in the terminal."""


def compare_folders(folders: Sequence[Path], out: Path, reference_file: Path | None = None) -> None:
    """Compare runs: print a table, and write figures, numbers and a page.

    Args:
        folders: Folders that `train` wrote: at least two, or at least one if there is a reference.
        out: Folder for the figures, numbers.json and report.html.
        reference_file: CSV file with accuracy curves. The differences of each run from them are also printed.

    Raises:
        MiiiiSearchError: There are too few folders, `out` cannot be written, or the reference cannot be read or
            compared.
    """
    if len(folders) < 2 and reference_file is None:
        raise MiiiiSearchError(
            f"compare needs at least two folders of runs, but got {len(folders)}; "
            "for one run type miiii-search analyze RUN_DIR, or add --reference FILE"
        )
    reference = None if reference_file is None else read_reference(reference_file)
    runs, problems = _read_runs(folders)
    compared = {} if reference is None else _compare_with_reference(runs, reference)
    figure_names = [*COMPARISON_FIGURE_NAMES, *([REFERENCE_FIGURE] if reference else [])]
    with open_report(out, figure_names) as output:
        with status_line() as step:
            findings = [_analyze_with_name(run, step) for run in runs]
            figures = comparison_figures(findings, reference)
            drawn = render_figures(figures, step, problems.append)
        problems += [f"{one.run.name}: {line}" for one in findings for line in one.missing]
        table = compare_runs(findings)
        for line in problems:
            print_line(f"note: {line}")
        console.print(comparison_table(table))
        numbers: dict[str, Any] = {"runs": [findings_to_json(one) for one in findings], "table": table.to_json()}
        if reference is not None:
            _print_all_differences(reference, compared)
            numbers["reference"] = {name: gaps.to_json() for name, gaps in compared.items()}
        publish_report(output, comparison_page(table, problems, MADE_BY), figures, drawn, numbers)
    print_line(f"{len(drawn)} figures, numbers.json and the page {out / PAGE}")


def _read_runs(folders: Sequence[Path]) -> tuple[list[TrainedRun], list[str]]:
    """Return the runs, and one line for each file that could not be read.

    Runs are named for their folders; two folders with the same name are named by their paths.
    """
    runs, problems = [], list[str]()
    for folder in folders:
        run, lines = read_run(folder)
        runs.append(run)
        problems += lines
    names = [run.name for run in runs]
    named = [
        run if names.count(run.name) == 1 else replace(run, name=str(folder))
        for run, folder in zip(runs, folders, strict=True)
    ]
    return named, problems


def _analyze_with_name(run: TrainedRun, step: Callable[[str], None]) -> Findings:
    """Analyze a run; its name precedes each step that is shown."""
    return analyze(run, lambda what: step(f"{run.name}: {what}"))


def _compare_with_reference(runs: Sequence[TrainedRun], reference: ReferenceCurves) -> dict[str, ReferenceDifferences]:
    """Return the differences of each run from the reference, by the run's name.

    Raises:
        MiiiiSearchError: A run has no record, or cannot be compared with the reference.
    """
    compared = {}
    for run in runs:
        if run.record is None:
            raise MiiiiSearchError(
                f"{run.name} has no record to compare with {reference.name}; train it again with miiii-search train"
            )
        compared[run.name] = differences_from_reference(run.experiment, run.record, reference)
    return compared


def _print_all_differences(reference: ReferenceCurves, compared: Mapping[str, ReferenceDifferences]) -> None:
    """Print mean accuracies at the epochs of the reference, and the largest difference of each split."""
    for name, gaps in compared.items():
        print_line(f"{name} compared with {reference.name}: accuracies, mean over tasks")
        console.print(differences_table(gaps))
        for split in SPLITS:
            largest, epoch = gaps.largest(split)
            print_line(f"{split}: the largest difference is {largest:.3f}, at epoch {epoch:,}")


def differences_table(compared: ReferenceDifferences) -> FittedTable:
    """Return a table of the accuracies of a run and of the reference, one row per epoch of the reference."""
    columns = [Column("epoch", [f"{epoch:,}" for epoch in compared.epochs])]
    for split in SPLITS:
        reference, run = compared.reference[split], compared.run[split]
        gaps = [f"{run[k] - reference[k]:+.3f}" for k in range(len(compared.epochs))]
        columns += [
            Column(f"{split}\nreference", [f"{value:.3f}" for value in reference], drop_order=1),
            Column(f"{split}\nrun", [f"{value:.3f}" for value in run], drop_order=2),
            Column(f"{split}\ndifference", gaps),
        ]
    return FittedTable(columns)


def comparison_table(comparison: ComparisonTable) -> FittedTable:
    """Return the table of a comparison for the terminal, one row per quantity and one column per run.

    In a narrow terminal names are folded, and runs that do not fit are left out; the page has all of them.
    """
    rows = [row for row in comparison.rows if max(len(cell.values) for cell in row.cells) <= MAX_VALUES]
    quantities = [f"{row.name}, {row.unit}".rstrip(", ") for row in rows]
    names = comparison.header[2 : 2 + len(comparison.names)]
    runs = [[row.cells[k].text for row in rows] for k in range(len(names))]
    return FittedTable(
        [
            Column("", quantities, align_left=True, shrink_to=16, fold=True),
            # The first two runs are always shown.
            *(
                Column(name, cells, shrink_to=8, fold=True, drop_order=k // 2)
                for k, (name, cells) in enumerate(zip(names, runs, strict=True))
            ),
        ]
    )
