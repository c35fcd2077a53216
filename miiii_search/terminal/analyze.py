"""The analyses as commands show them: a progress line, files, what could not be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from rich.table import Table
from rich.text import Text

from miiii_search.analysis.catalogue import (
    page_of,
    page_of_several,
    page_of_study,
    pictures,
    pictures_of_several,
    pictures_of_study,
)
from miiii_search.analysis.comparison import Comparison
from miiii_search.analysis.comparison import compare as compare_findings
from miiii_search.analysis.findings import Findings, analyze
from miiii_search.analysis.numbers import to_numbers
from miiii_search.analysis.report import NUMBERS, PAGE, Drawn, draw, write
from miiii_search.analysis.run import TrainedRun
from miiii_search.errors import UserError
from miiii_search.experiment.metrics import compare
from miiii_search.experiment.telemetry import snapshots_in
from miiii_search.search.analyses import attach as attach_files
from miiii_search.search.analyses import find_ended, read_trial
from miiii_search.search.artifacts import Artifact
from miiii_search.search.run_folder import SNAPSHOTS, read_run
from miiii_search.search.study import Study
from miiii_search.search.survey import read_survey
from miiii_search.terminal.display import console, duration
from miiii_search.terminal.retrain import train_visibly

MADE_BY = f"Made by miiii-search {version('miiii-search')}."


def analyze_folder(folder: Path, out: Path | None) -> None:
    """Analyzes what `train` wrote. Raises `UserError`."""
    run, problems = read_run(folder)
    analyze_run(run, problems, out or folder / "analysis")


def analyze_run(run: TrainedRun, problems: Sequence[str], out: Path) -> list[Drawn]:
    """Computes, draws and writes all that the run allows; returns what was drawn.

    Raises `UserError` if `out` cannot be written.
    """
    started = time.monotonic()
    with _steps() as step:
        findings = analyze(run, step)
        drawn = draw(pictures(findings), step)
    remarks = [*problems, *findings.missing]
    for line in remarks:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    page = page_of(findings, problems, MADE_BY)
    _write(lambda: write(out, page, drawn, to_numbers(findings)), out)
    seconds = duration(time.monotonic() - started)
    console.print(f"{len(drawn)} figures, numbers.json and the page {out / PAGE} in {seconds}", soft_wrap=True)
    return drawn


def analyze_trial(
    study: Study, number: int, out: Path | None, snapshots: Path | None, *, retrain: bool, attach: bool
) -> None:
    """Analyzes an ended trial of a study, and puts the figures onto its page in the dashboard.

    Where its weights were not kept it is trained again, to the same epoch, if `retrain`. Raises `UserError`.
    """
    trial = find_ended(study, number)
    run, problems = read_trial(study, trial, snapshots)
    folder = out or Path("analysis") / f"{study.name}-{number}".replace("/", "_")
    if run.weights is None and retrain:
        run = _trained_again(run, folder)
    elif run.weights is None:
        seconds = trial.user_attrs.get("seconds")
        took = f", which took {duration(float(seconds))}" if seconds else ""
        problems.append(f"the weights of trial {number} were not kept: add --retrain to train it again{took}")
    analyze_run(run, problems, folder)
    if attach:
        names = [PAGE, NUMBERS, *sorted(path.name for path in folder.glob("*.png"))]
        attach_files(study, trial, [Artifact(name, (folder / name).read_bytes()) for name in names])
        console.print(f"they are on the page of trial {number} in the dashboard, too", soft_wrap=True)


def _trained_again(run: TrainedRun, folder: Path) -> TrainedRun:
    """The run with its weights, and with snapshots in `folder`."""
    snapshots = folder / SNAPSHOTS
    result, spectra = train_visibly(run.experiment, run.hyperparameters, snapshots, until=run.last_epoch)
    if run.metrics is not None:
        verdict, why = compare(run.metrics, result.metrics)
        console.print(f"trained again, {verdict}: {why}", soft_wrap=True)
    again = snapshots_in(snapshots)
    return replace(
        run, weights=result.weights, snapshots=again, spectra=run.spectra or spectra, record=run.record or result.record
    )


def analyze_study(study: Study, out: Path | None) -> None:
    """Draws a whole study, as it is now. Raises `UserError` if `out` cannot be written."""
    folder = out or Path("analysis") / study.name.replace("/", "_")
    survey = read_survey(study)
    with _steps() as step:
        drawn = draw(pictures_of_study(survey), step)
    page = page_of_study(survey, MADE_BY)
    _write(lambda: write(folder, page, drawn, survey.to_json()), folder)
    console.print(page.summary, soft_wrap=True, markup=False)
    console.print(f"{len(drawn)} figures, numbers.json and the page {folder / PAGE}", soft_wrap=True, markup=False)


def compare_folders(folders: Sequence[Path], out: Path) -> None:
    """Puts runs side by side: a table here and on a page, and figures. Raises `UserError`."""
    if len(folders) < 2:
        raise UserError("compare needs two runs' folders or more; for one there is miiii-search analyze RUN_DIR")
    read = [read_run(folder) for folder in folders]
    problems = [line for _, lines in read for line in lines]
    with _steps() as step:
        findings = [_analyze_as(run, step) for run, _ in read]
        drawn = draw(pictures_of_several(findings), step)
    table = compare_findings(findings)
    for line in problems:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    console.print(_table(table))
    numbers = {"runs": [to_numbers(one) for one in findings], "table": table.to_json()}
    _write(lambda: write(out, page_of_several(table, problems, MADE_BY), drawn, numbers), out)
    console.print(f"{len(drawn)} figures, numbers.json and the page {out / PAGE}", soft_wrap=True, markup=False)


def _analyze_as(run: TrainedRun, step: Callable[[str], None]) -> Findings:
    return analyze(run, lambda what: step(f"{run.name}: {what}"))


def _table(comparison: Comparison) -> Table:
    """What fits into a terminal: the page has the rest, such as a number for each head."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for name in comparison.header[2 : 2 + len(comparison.names)]:
        table.add_column(Text(name), justify="right")
    for row in comparison.rows:
        if max(len(cell.values) for cell in row.cells) <= 2:
            table.add_row(Text(f"{row.name}, {row.unit}".rstrip(", ")), *(Text(cell.text) for cell in row.cells))
    return table


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, where somebody watches."""
    with console.status("reading") as status:
        yield lambda what: status.update(what)


def _write(write: Callable[[], object], out: Path) -> None:
    try:
        write()
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
