"""Commands for what a search ends with: the best configuration, and one run of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miiii_search.cli import processes
from miiii_search.cli.opening import open_study
from miiii_search.cli.options import DEFAULT_STORAGE, StorageOption, StudyOption
from miiii_search.cli.talking import say, say_ignored, write
from miiii_search.errors import MiiiiSearchError
from miiii_search.files import write_file

if TYPE_CHECKING:
    from miiii_search.analysis.run import TrainedRun

STOPPED_CODE = 130
"""As a shell has it for what Ctrl-C ended: what was to follow a whole run does not follow a part of one."""

ONE_OF_TWO = "name a run's folder, or a trial of a study with --trial N, one of the two"

RunFolderArgument = Annotated[Path | None, typer.Argument(metavar="RUN_DIR", help="A folder that `train` wrote")]
TrialOption = Annotated[int | None, typer.Option(help="A trial's number, instead of a folder", min=0)]


def best(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    out: Annotated[Path | None, typer.Option(help="Where to write it; unset: standard output")] = None,
    format: Annotated[str, typer.Option(help="toml or json")] = "",
    by: Annotated[
        str,
        typer.Option(
            metavar="trial|median|worst",
            help="The best trial; or, of the configuration that is best over its seeds, the median or the worst one",
        ),
    ] = "trial",
) -> None:
    """Export the best trial as a file that `train` runs, with its metrics and its provenance.

    Example: miiii-search best --study demo --out best.toml

    Example: miiii-search best --study demo --by median --out best.toml
    """
    from miiii_search.study.export import BY, export_best
    from miiii_search.study.hints import file_argument, hint

    chosen = format or ("json" if out and out.suffix == ".json" else "toml")
    if chosen not in ("toml", "json"):
        raise MiiiiSearchError(f"--format must be toml or json, but is `{chosen}`")
    if by not in BY:
        raise MiiiiSearchError(f"--by must be {', '.join(BY[:-1])} or {BY[-1]}, but is `{by}`")
    exported = export_best(open_study(study, storage), by)
    text = exported.to_json() if chosen == "json" else exported.to_toml(out)
    if out is None:
        write(text)
        return
    try:
        write_file(out, text)
    except OSError as error:
        raise MiiiiSearchError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    say(f"trial {exported.provenance['trial']} of study `{exported.provenance['study']}` is in {out}; to train it:")
    say(f"  {hint('train', file_argument(out), '--out', 'runs/best')}")


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
    from miiii_search.cli.views.analyze import compare_folders

    compare_folders(run_folders, out, reference)


def export_weights(
    run_folder: RunFolderArgument = None,
    out: Annotated[Path, typer.Option(help="The file to write")] = Path("weights.safetensors"),
    format: Annotated[str, typer.Option(help="transformer-lens, or safetensors with our names")] = "safetensors",
    trial: TrialOption = None,
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Write a trained network's weights for other tools; docs/weights.md says how to load them.

    Example: miiii-search export-weights runs/best --format transformer-lens --out network.safetensors
    """
    from miiii_search.cli.views.export_weights import export_weights

    run, problems = chosen_run(run_folder, trial, study, storage)
    for line in export_weights(run, problems, format, out):
        say(f"note: {line}")
    say(f"the weights are in {out}")


def chosen_run(
    folder: Path | None, trial: int | None, study: str | None, storage: str, snapshots: Path | None = None
) -> tuple[TrainedRun, list[str]]:
    """A folder's run, or a trial's; and a line about each file of it that cannot be read."""
    if (folder is None) == (trial is None):
        raise MiiiiSearchError(ONE_OF_TWO)
    if folder is not None:
        from miiii_search.runs.folder import read_run

        return read_run(folder)
    from miiii_search.runs.trial_runs import find_ended, read_trial

    assert trial is not None
    opened = open_study(study, storage)
    return read_trial(opened, find_ended(opened, trial), snapshots)


def train(
    file: Annotated[Path | None, typer.Argument(help="A configuration that `best` wrote")] = None,
    preset: Annotated[str | None, typer.Option(help="demo, fast, narrow, paper or authors-code")] = None,
    config: Annotated[str | None, typer.Option(help="A named configuration of the preset, such as paper-best")] = None,
    out: Annotated[Path, typer.Option(help="The folder for metrics, weights and curves")] = Path("runs/latest"),
    # Not from MIIII_SET and MIIII_PRESET, which are a study's: a file is trained as it is.
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of the run; may be repeated")
    ] = None,
) -> None:
    """Train one configuration: a file's, or a preset's. Says whether it repeats what the file recorded.

    Told to stop (Ctrl-C, SIGTERM, a closed terminal), it writes what it has trained, if no other run is there. A
    second Ctrl-C or SIGTERM ends it at once.

    Example: miiii-search train --preset paper --config paper-best --out runs/table-2
    """
    from miiii_search.cli.views.retrain import choose, retrain
    from miiii_search.training.environment import import_jax

    chosen = choose(file, preset, config, settings or [])
    say_ignored()
    import_jax()
    stop = processes.stop_on_signals()
    if not retrain(chosen, out, compare_with_recorded=not settings, stop=stop.is_set):
        raise typer.Exit(STOPPED_CODE)
