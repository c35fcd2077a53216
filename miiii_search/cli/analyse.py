"""Commands that analyze trained runs and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miiii_search.cli.options import DEFAULT_STORAGE, RunFolderArgument, StorageOption, StudyOption, TrialOption
from miiii_search.cli.output import say_ignored
from miiii_search.cli.resolve import open_study
from miiii_search.cli.results import ONE_OF_TWO
from miiii_search.errors import MiiiiSearchError
from miiii_search.files import file_name


def analyze(
    run_folder: RunFolderArgument = None,
    out: Annotated[
        Path | None, typer.Option(help="Where figures and report.html go; unset: RUN_DIR/analysis", show_default=False)
    ] = None,
    trial: TrialOption = None,
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    snapshots: Annotated[
        Path | None, typer.Option(help="The folder of `work --snapshots`, for a trial's circuits through training")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train a trial again if its weights were not kept")
    ] = False,
    attach: Annotated[bool, typer.Option(help="Show a trial's figures on its page in the dashboard")] = True,
) -> None:
    """Take apart what a network learned: the paper's figures, numbers.json and report.html.

    Of a folder that `train` wrote, of a trial (--trial), or, with neither, of a whole study.

    Example: miiii-search analyze runs/best

    Example: miiii-search analyze --study table-1 --trial 17
    """
    from miiii_search.cli.views.analyze import analyze_folder, analyze_study, analyze_trial

    if trial is None and (retrain or snapshots is not None):
        raise MiiiiSearchError("--retrain and --snapshots are for a trial of a study: name it with --trial N")
    if run_folder is not None:
        if trial is not None:
            raise MiiiiSearchError(ONE_OF_TWO)
        analyze_folder(run_folder, out)
    elif trial is not None:
        if retrain:
            say_ignored()
        analyze_trial(open_study(study, storage), trial, out, snapshots, retrain=retrain, attach=attach)
    else:
        analyze_study(open_study(study, storage), out)


def compare(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders that `train` wrote")],
    out: Annotated[Path, typer.Option(help="The folder for figures, numbers.json and report.html")] = Path(
        "comparison"
    ),
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Accuracy curves to compare with: a CSV file with the columns split (training or validation), "
            "epoch, and one for each modulus",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Put several runs side by side: one table, and one figure for each of the paper's findings.

    With --reference, also draw the runs beside other accuracy curves and print the differences; one run is enough.

    Example: miiii-search compare runs/nanda runs/miiii runs/basis runs/masked --out comparison

    Example: miiii-search compare runs/authors-code --reference figure-6.csv
    """
    from miiii_search.cli.views.compare import compare_folders

    compare_folders(run_folders, out, reference)


def simulate(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    out: Annotated[
        Path | None, typer.Option(help="The picture, a PNG or SVG; unset: STUDY-rules.png", show_default=False)
    ] = None,
    lanes: Annotated[int, typer.Option(help="Trials at once, of all workers together", min=1)] = 8,
    replays: Annotated[int, typer.Option(help="Orders of the queue to try", min=1)] = 20,
) -> None:
    """Show what each pruning rule would have done with a study's trials: epochs saved, grokkers lost.

    Nothing is trained: the trials' records are replayed, under our rules and under each pruner of Optuna's.

    Example: miiii-search simulate --study demo --out rules.png
    """
    from miiii_search.cli.views.simulate import read_study_curves, replay_pruners, show_replays
    from miiii_search.runs.output_files import prepare_output_file

    opened = open_study(study, storage)
    path = out or Path(file_name(opened.name, "-rules.png"))
    prepare_output_file(path)
    curves = read_study_curves(opened)
    show_replays(curves, replay_pruners(curves, lanes, replays), path, lanes)
