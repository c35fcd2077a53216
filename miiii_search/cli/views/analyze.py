"""The analyses as commands show them: a progress line, files, what could not be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from rich.text import Text

from miiii_search.analysis.catalogue import (
    COMPARISON_FIGURES,
    REFERENCE_FIGURE,
    STUDY_FIGURES,
    comparison_figures,
    comparison_page,
    pictures,
    run_page,
    study_figures,
    study_page,
)
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
from miiii_search.analysis.report import (
    NUMBERS,
    PAGE,
    RenderedFigure,
    draw,
)
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.cli.views.display import console, duration
from miiii_search.cli.views.retrain import train_visibly
from miiii_search.cli.views.tables import Column, Fitted
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import compare_metrics
from miiii_search.experiment.record import find_snapshots
from miiii_search.files import file_name
from miiii_search.runs.output_folder import OutputFolder, newest_path
from miiii_search.runs.report_folder import MADE_BY, RUN_FIGURE_NAMES, open_report, publish
from miiii_search.runs.run_folder import CONFIG, SNAPSHOTS, read_run
from miiii_search.runs.study_summary import read_study_summary
from miiii_search.runs.trial_runs import attach_artifacts, find_finished_trial, read_trial_run
from miiii_search.storage.artifacts import Artifact
from miiii_search.study.study import Study


def analyze_folder(folder: Path, out: Path | None) -> None:
    """Analyzes what `train` wrote. Raises `MiiiiSearchError`."""
    run, problems = read_run(folder)
    with open_report(out or folder / "analysis", RUN_FIGURE_NAMES) as output:
        analyze_run(run, problems, output)


def analyze_run(run: TrainedRun, problems: Sequence[str], output: OutputFolder) -> list[RenderedFigure]:
    """Computes, draws and writes all that the run allows; returns what was drawn.

    Raises `MiiiiSearchError` if the folder cannot be written.
    """
    started, failures = time.monotonic(), list[str]()
    with _steps() as step:
        findings = analyze(run, step)
        figures = pictures(findings)
        drawn = draw(figures, step, failures.append)
    problems = [*problems, *failures]
    for line in [*problems, *findings.missing]:
        _say(f"note: {line}")
    page = run_page(findings, problems, MADE_BY)
    publish(output, page, figures, drawn, findings_to_json(findings))
    seconds = duration(time.monotonic() - started)
    _say(f"{len(drawn)} figures, numbers.json and the page {output.path / PAGE} in {seconds}")
    return drawn


def analyze_trial(
    study: Study, number: int, out: Path | None, snapshots: Path | None, *, retrain: bool, attach: bool
) -> None:
    """Analyzes an ended trial of a study, and puts the figures onto its page in the dashboard.

    Where its weights were not kept it is trained again, to the same epoch, if `retrain`. Raises `MiiiiSearchError`.
    """
    trial = find_finished_trial(study, number)
    run, problems = read_trial_run(study, trial, snapshots)
    folder = out or Path("analysis") / file_name(study.name, f"-{number}")
    if newest_path(folder, CONFIG).exists():
        raise MiiiiSearchError(f"{folder} holds a run that train wrote; choose another --out")
    trains = retrain and run.weights is None and trial.state != TrialState.FAIL
    with open_report(folder, [*RUN_FIGURE_NAMES, SNAPSHOTS] if trains else RUN_FIGURE_NAMES) as output:
        if trains:
            run, verdict = _trained_again(run, output)
            problems += verdict
        elif run.weights is None and trial.state == TrialState.FAIL:
            problems.append(f"the loss of trial {number} stopped being finite, so that it has no weights")
        elif run.weights is None:
            seconds = trial.user_attrs.get("seconds")
            took = f", which took {duration(float(seconds))}" if seconds else ""
            problems.append(f"the weights of trial {number} were not kept: add --retrain to train it again{took}")
        drawn = analyze_run(run, problems, output)
    if attach:
        pages = [Artifact(name, (folder / name).read_bytes()) for name in (PAGE, NUMBERS)]
        attach_artifacts(study, trial, [*pages, *(Artifact(f"{one.picture.name}.png", one.png) for one in drawn)])
        _say(f"they are on the page of trial {number} in the dashboard, too")


def _trained_again(run: TrainedRun, output: OutputFolder) -> tuple[TrainedRun, list[str]]:
    """The run with its weights, and with its snapshots; and a line if that is not the same run.

    Raises `MiiiiSearchError`.
    """
    snapshots, remarks = output.unfinished / SNAPSHOTS, list[str]()
    snapshots.mkdir()  # without any, those of another run are to go
    result, spectra = train_visibly(run.experiment, run.hyperparameters, snapshots, until=run.last_epoch)
    if run.metrics is not None:
        verdict, why = compare_metrics(run.metrics, result.metrics)
        _say(f"trained again, {verdict}: {why}")
        if verdict != "identical":
            remarks.append(f"the weights are of a repetition that {verdict} with what was recorded: {why}")
    again = replace(
        run,
        weights=result.weights,
        snapshots=find_snapshots(snapshots),
        spectra=run.spectra or spectra,
        record=run.record or result.record,
    )
    return again, remarks


def analyze_study(study: Study, out: Path | None) -> None:
    """Draws a whole study, as it is now. Raises `MiiiiSearchError` if `out` cannot be written."""
    folder, failures = out or Path("analysis") / file_name(study.name), list[str]()
    with open_report(folder, STUDY_FIGURES) as output:
        summary = read_study_summary(study)
        figures = study_figures(summary)
        with _steps() as step:
            drawn = draw(figures, step, failures.append)
        page = study_page(summary, MADE_BY)
        page = replace(page, remarks=[*failures, *page.remarks])
        for line in failures:
            _say(f"note: {line}")
        publish(output, page, figures, drawn, summary.to_json())
    _say(page.summary)
    _say(f"{len(drawn)} figures, numbers.json and the page {folder / PAGE}")


def compare_folders(folders: Sequence[Path], out: Path, reference_file: Path | None = None) -> None:
    """Put runs side by side: a table here and on a page, and figures; with a reference, the differences from it.

    Raises `MiiiiSearchError` if `out` cannot be written, or if the reference cannot be read or compared.
    """
    if len(folders) < 2 and reference_file is None:
        raise MiiiiSearchError("compare needs two runs' folders or more; for one there is miiii-search analyze RUN_DIR")
    reference = None if reference_file is None else read_reference(reference_file)
    runs, problems = [], list[str]()
    for folder in folders:
        run, lines = read_run(folder)
        runs.append(run)
        problems += lines
    compared = {} if reference is None else _compare_with_reference(runs, folders, reference)
    names = [name for name, *_ in COMPARISON_FIGURES] + ([REFERENCE_FIGURE] if reference else [])
    with open_report(out, names) as output:
        with _steps() as step:
            findings = [_analyze_as(run, step) for run in _told_apart(runs, folders)]
            figures = comparison_figures(findings, reference)
            drawn = draw(figures, step, problems.append)
        problems += [f"{one.run.name}: {line}" for one in findings for line in one.missing]
        table = compare_runs(findings)
        for line in problems:
            _say(f"note: {line}")
        console.print(comparison_table(table))
        numbers: dict[str, Any] = {"runs": [findings_to_json(one) for one in findings], "table": table.to_json()}
        if reference is not None:
            for name, gaps in compared.items():
                _print_differences(name, reference, gaps)
            numbers["reference"] = {name: gaps.to_json() for name, gaps in compared.items()}
        publish(output, comparison_page(table, problems, MADE_BY), figures, drawn, numbers)
    _say(f"{len(drawn)} figures, numbers.json and the page {out / PAGE}")


def _compare_with_reference(
    runs: Sequence[TrainedRun], folders: Sequence[Path], reference: ReferenceCurves
) -> dict[str, ReferenceDifferences]:
    """Return the differences of each run from the reference, by the run's name. Raises `MiiiiSearchError`."""
    compared = {}
    for run in _told_apart(runs, folders):
        if run.record is None:
            raise MiiiiSearchError(f"{run.name} has no record to compare with {reference.name}")
        compared[run.name] = differences_from_reference(run.experiment, run.record, reference)
    return compared


def _print_differences(name: str, reference: ReferenceCurves, compared: ReferenceDifferences) -> None:
    """Print mean accuracies at the reference's epochs, and the largest differences."""
    columns = [Column("epoch", [f"{epoch:,}" for epoch in compared.epochs])]
    for split in SPLITS:
        theirs, ours = compared.reference[split], compared.run[split]
        gaps = [f"{ours[k] - theirs[k]:+.3f}" for k in range(len(compared.epochs))]
        columns += [
            Column(f"{split}\nreference", [f"{value:.3f}" for value in theirs], rank=1),
            Column(f"{split}\nrun", [f"{value:.3f}" for value in ours], rank=2),
            Column(f"{split}\ndifference", gaps),
        ]
    _say(f"{name} beside {reference.name}: accuracies, mean over tasks")
    console.print(Fitted(columns))
    for split in SPLITS:
        largest, epoch = compared.largest(split)
        _say(f"{split}: the largest difference is {largest:.3f}, at epoch {epoch:,}")


def _told_apart(runs: Sequence[TrainedRun], folders: Sequence[Path]) -> list[TrainedRun]:
    """The runs, by their whole paths where two have the same name."""
    names = [run.name for run in runs]
    return [
        run if names.count(run.name) == 1 else replace(run, name=str(folder))
        for run, folder in zip(runs, folders, strict=True)
    ]


def _analyze_as(run: TrainedRun, step: Callable[[str], None]) -> Findings:
    return analyze(run, lambda what: step(f"{run.name}: {what}"))


def comparison_table(comparison: ComparisonTable) -> Fitted:
    """What fits into a terminal: the page has the rest, such as a number for each head.

    In a narrow terminal names go on in the next line; runs for which there is no room are left to the page.
    """
    rows = [row for row in comparison.rows if max(len(cell.values) for cell in row.cells) <= 2]
    quantities = [f"{row.name}, {row.unit}".rstrip(", ") for row in rows]
    names = comparison.header[2 : 2 + len(comparison.names)]
    runs = [[row.cells[k].text for row in rows] for k in range(len(names))]
    return Fitted(
        [
            Column("", quantities, left=True, least=16, fold=True),
            # The first two always have a place.
            *(
                Column(name, cells, least=8, fold=True, rank=k // 2)
                for k, (name, cells) in enumerate(zip(names, runs, strict=True))
            ),
        ]
    )


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, where somebody watches."""
    with console.status("reading") as status:
        yield lambda what: status.update(Text(what))


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)
