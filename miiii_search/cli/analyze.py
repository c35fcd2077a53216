"""Commands that analyze trained networks, compare runs, and replay studies under other pruners."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miiii_search.cli.options import (
    DEFAULT_STORAGE,
    RunFolderArgument,
    RunFoldersArgument,
    StorageOption,
    StudyOption,
    TrialOption,
    TrialSnapshotsOption,
)
from miiii_search.cli.output import report_removed_variables
from miiii_search.cli.resolve import check_only_folder, open_study
from miiii_search.errors import MiiiiSearchError
from miiii_search.files import file_name


def analyze(
    run_folder: RunFolderArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for figures and report.html. By default RUN_DIR/analysis, or analysis/STUDY[-TRIAL].",
            show_default=False,
        ),
    ] = None,
    trial: TrialOption = None,
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    snapshots: TrialSnapshotsOption = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train a trial again if its weights were not kept.")
    ] = False,
    attach: Annotated[bool, typer.Option(help="Show the figures on the trial's page in the dashboard.")] = True,
) -> None:
    """Analyze what a network learned, or a whole study.

    Writes the figures of the paper, numbers.json and report.html: for a folder that `train` wrote, for a trial
    (--trial), or for a whole study if neither is given.

    Examples:
        miiii-search analyze runs/best
        miiii-search analyze --study table-1 --trial 17
        miiii-search analyze --study table-1
    """
    from miiii_search.cli.views.analyze import analyze_folder, analyze_study, analyze_trial

    if trial is None and (retrain or snapshots is not None):
        option = "--retrain" if retrain else f"--snapshots {snapshots}"
        raise MiiiiSearchError(f"{option} applies to a trial of a study, but --trial was not given; add --trial N")
    if run_folder is not None:
        check_only_folder(run_folder, trial)
        analyze_folder(run_folder, out)
    elif trial is not None:
        if retrain:
            report_removed_variables()
        analyze_trial(open_study(study_name, storage), trial, out, snapshots, retrain=retrain, attach=attach)
    else:
        analyze_study(open_study(study_name, storage), out)


def compare(
    run_folders: RunFoldersArgument,
    out: Annotated[Path, typer.Option(help="Folder for figures, numbers.json and report.html.")] = Path("comparison"),
    reference: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with accuracy curves to compare with. Its columns are split (training or validation), "
            "epoch, and one for each modulus.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compare several runs in one table and common figures.

    There is one figure for each finding of the paper. With --reference, the runs are also compared with other
    accuracy curves; then one run is enough.

    Examples:
        miiii-search compare runs/nanda runs/miiii --out comparison
        miiii-search compare runs/authors-code --reference figure-6.csv
    """
    from miiii_search.cli.views.compare import compare_folders

    compare_folders(run_folders, out, reference)


def simulate(
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    out: Annotated[
        Path | None, typer.Option(help="Figure, a PNG or SVG file. By default STUDY-rules.png.", show_default=False)
    ] = None,
    lanes: Annotated[int, typer.Option(help="Number of trials at a time, of all workers together.", min=1)] = 8,
    replays: Annotated[int, typer.Option(help="Number of random orders of the queue to replay.", min=1)] = 20,
) -> None:
    """Simulate a study under different pruners.

    Shows how many epochs each pruner would have saved, and how many grokking trials it would have lost. Nothing is
    trained: the records of the trials are replayed, under the pruners of this program and under those of Optuna.

    Examples:
        miiii-search simulate --study demo --out rules.png
    """
    from miiii_search.cli.views.simulate import read_study_curves, replay_pruners, show_replays
    from miiii_search.runs.output_files import prepare_output_file

    study = open_study(study_name, storage)
    path = out or Path(file_name(study.name, "-rules.png"))
    prepare_output_file(path)
    curves = read_study_curves(study)
    show_replays(curves, replay_pruners(curves, lanes, replays), path, lanes)
