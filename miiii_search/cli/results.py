"""Commands for what a search ends with: the best configuration, and one run of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miiii_search.cli import signals
from miiii_search.cli.options import DEFAULT_STORAGE, RunFolderArgument, StorageOption, StudyOption, TrialOption
from miiii_search.cli.output import say, say_ignored, write
from miiii_search.cli.resolve import open_study
from miiii_search.errors import MiiiiSearchError
from miiii_search.files import write_file

if TYPE_CHECKING:
    from miiii_search.analysis.trained_run import TrainedRun

STOPPED_CODE = 130
"""As a shell has it for what Ctrl-C ended: what was to follow a whole run does not follow a part of one."""

ONE_OF_TWO = "name a run's folder, or a trial of a study with --trial N, one of the two"


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
        from miiii_search.runs.run_folder import read_run

        return read_run(folder)
    from miiii_search.runs.trial_runs import find_finished_trial, read_trial_run

    assert trial is not None
    opened = open_study(study, storage)
    return read_trial_run(opened, find_finished_trial(opened, trial), snapshots)


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
    from miiii_search.cli.views.train import choose_configuration, train_to_folder
    from miiii_search.training.jax_environment import import_jax

    chosen = choose_configuration(file, preset, config, settings or [])
    say_ignored()
    import_jax()
    stop = signals.stop_on_signals()
    if not train_to_folder(chosen, out, compare_with_recorded=not settings, stop=stop.is_set):
        raise typer.Exit(STOPPED_CODE)
