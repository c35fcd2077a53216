"""The command `analyze`: figures, numbers and a page about one run, one trial of a study, or a whole study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from miiii_search.analysis.findings import analyze
from miiii_search.analysis.numbers import findings_to_json
from miiii_search.analysis.report.files import NUMBERS, PAGE
from miiii_search.analysis.report.rendering import RenderedFigure, render_figures
from miiii_search.analysis.report.run_report import RUN_FIGURE_NAMES, run_figures, run_page
from miiii_search.analysis.report.study_report import STUDY_FIGURE_NAMES, study_figures, study_page
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.cli.views.console import print_line, status_line
from miiii_search.cli.views.formatting import format_duration
from miiii_search.cli.views.training_progress import train_with_progress
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import compare_metrics
from miiii_search.experiment.record import find_snapshots
from miiii_search.files import file_name
from miiii_search.runs.output_folder import OutputFolder, newest_path
from miiii_search.runs.report_folder import MADE_BY, open_report, publish_report
from miiii_search.runs.run_folder import CONFIG, SNAPSHOTS, read_run
from miiii_search.runs.study_summary import read_study_summary
from miiii_search.runs.trial_runs import attach_artifacts, find_finished_trial, read_trial_run
from miiii_search.storage.artifacts import Artifact
from miiii_search.study.study import Study


def analyze_folder(folder: Path, out: Path | None) -> None:
    """Analyze a run that `train` wrote.

    Args:
        folder: The run's folder.
        out: Folder for the results; `folder`/analysis by default.

    Raises:
        MiiiiSearchError: `folder` is not one of a run, or `out` cannot be written.
    """
    run, problems = read_run(folder)
    with open_report(out or folder / "analysis", RUN_FIGURE_NAMES) as output:
        analyze_run(run, problems, output)


def analyze_run(run: TrainedRun, problems: Sequence[str], output: OutputFolder) -> list[RenderedFigure]:
    """Analyze a run as far as its files allow, and write figures, numbers.json and report.html.

    Args:
        run: The run.
        problems: Lines about what could not be read. They are printed, and shown on the page.
        output: Folder for the results.

    Returns:
        The figures.

    Raises:
        MiiiiSearchError: The folder cannot be written.
    """
    started, failures = time.monotonic(), list[str]()
    with status_line() as step:
        findings = analyze(run, step)
        figures = run_figures(findings)
        drawn = render_figures(figures, step, failures.append)
    problems = [*problems, *failures]
    for line in [*problems, *findings.missing]:
        print_line(f"note: {line}")
    page = run_page(findings, problems, MADE_BY)
    publish_report(output, page, figures, drawn, findings_to_json(findings))
    seconds = format_duration(time.monotonic() - started)
    print_line(f"{len(drawn)} figures, numbers.json and the page {output.path / PAGE} in {seconds}")
    return drawn


def analyze_trial(
    study: Study, number: int, out: Path | None, snapshots: Path | None, *, retrain: bool, attach: bool
) -> None:
    """Analyze an ended trial of a study.

    Args:
        study: The study.
        number: The trial's number.
        out: Folder for the results; analysis/STUDY-NUMBER by default.
        snapshots: Folder to which `work --snapshots` wrote.
        retrain: Whether to train the trial again, to the same epoch, if its weights were not kept.
        attach: Whether to show the figures on the trial's page in the dashboard.

    Raises:
        MiiiiSearchError: There is no such ended trial, or the folder cannot be written.
    """
    trial = find_finished_trial(study, number)
    run, problems = read_trial_run(study, trial, snapshots)
    folder = out or Path("analysis") / file_name(study.name, f"-{number}")
    if newest_path(folder, CONFIG).exists():
        raise MiiiiSearchError(f"{folder} holds a run that train wrote; choose another --out")
    trains = retrain and run.weights is None and trial.state != TrialState.FAIL
    with open_report(folder, [*RUN_FIGURE_NAMES, SNAPSHOTS] if trains else RUN_FIGURE_NAMES) as output:
        if trains:
            run, differences = _train_again(run, output)
            problems += differences
        elif run.weights is None:
            problems.append(_why_no_weights(trial))
        drawn = analyze_run(run, problems, output)
    if attach:
        pages = [Artifact(name, (folder / name).read_bytes()) for name in (PAGE, NUMBERS)]
        attach_artifacts(study, trial, [*pages, *(Artifact(f"{one.spec.name}.png", one.png) for one in drawn)])
        print_line(f"the figures are on the page of trial {number} in the dashboard, too")


def _why_no_weights(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return f"the loss of trial {trial.number} stopped being finite, so that it has no weights"
    seconds = trial.user_attrs.get("seconds")
    took = f", which took {format_duration(float(seconds))}" if seconds else ""
    return f"the weights of trial {trial.number} were not kept: add --retrain to train it again{took}"


def _train_again(run: TrainedRun, output: OutputFolder) -> tuple[TrainedRun, list[str]]:
    """Train a run again, to the same epoch, and compare it with the recorded metrics.

    Returns:
        The run with its weights and snapshots, and a line if its metrics are not identical to the recorded ones.

    Raises:
        MiiiiSearchError: The loss stopped being finite, or the run does not fit into memory.
    """
    snapshots, remarks = output.unfinished / SNAPSHOTS, list[str]()
    snapshots.mkdir()  # an empty folder replaces the snapshots of an earlier analysis, too
    result, spectra = train_with_progress(run.experiment, run.hyperparameters, snapshots, until=run.last_epoch)
    if run.metrics is not None:
        verdict, why = compare_metrics(run.metrics, result.metrics)
        print_line(f"trained again, {verdict}: {why}")
        if verdict != "identical":
            remarks.append(f"the weights are of a repetition that {verdict} with what was recorded: {why}")
    trained = replace(
        run,
        weights=result.weights,
        snapshots=find_snapshots(snapshots),
        spectra=run.spectra or spectra,
        record=run.record or result.record,
    )
    return trained, remarks


def analyze_study(study: Study, out: Path | None) -> None:
    """Draw figures of a whole study in its current state.

    Args:
        study: The study.
        out: Folder for the results; analysis/STUDY by default.

    Raises:
        MiiiiSearchError: The folder cannot be written.
    """
    folder, failures = out or Path("analysis") / file_name(study.name), list[str]()
    with open_report(folder, STUDY_FIGURE_NAMES) as output:
        summary = read_study_summary(study)
        figures = study_figures(summary)
        with status_line() as step:
            drawn = render_figures(figures, step, failures.append)
        page = study_page(summary, MADE_BY)
        page = replace(page, remarks=[*failures, *page.remarks])
        for line in failures:
            print_line(f"note: {line}")
        publish_report(output, page, figures, drawn, summary.to_json())
    print_line(page.summary)
    print_line(f"{len(drawn)} figures, numbers.json and the page {folder / PAGE}")
