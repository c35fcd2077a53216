"""Commands for the results of a study: the best configuration, a run of it, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from miiii_search.cli import exit_codes, signals
from miiii_search.cli.options import DEFAULT_STORAGE, RunFolderArgument, StorageOption, StudyOption, TrialOption
from miiii_search.cli.output import check_choice, print_line, report_removed_variables, write_out, write_result
from miiii_search.cli.resolve import check_only_folder, open_study
from miiii_search.errors import MiiiiSearchError

if TYPE_CHECKING:
    from miiii_search.analysis.trained_run import TrainedRun

FILE_FORMATS = ("toml", "json")


def best(
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    out: Annotated[Path | None, typer.Option(help="File to write. By default standard output.")] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="toml|json", help="File format. By default toml, or json if the name of the file ends in .json."
        ),
    ] = "",
    by: Annotated[
        str,
        typer.Option(
            metavar="trial|median|worst",
            help="trial: the best trial. median, worst: of the configuration that is best over its seeds, the trial "
            "with the median or the worst result.",
        ),
    ] = "trial",
) -> None:
    """Export the best configuration of a study.

    The file can be given to `train`. It also holds the metrics and the provenance of the trial.

    Examples:
        miiii-search best --study demo --out best.toml
        miiii-search best --study demo --by median --out best.toml
    """
    from miiii_search.storage.hints import file_argument, hint
    from miiii_search.study.export import BY, export_best

    chosen = format or ("json" if out and out.suffix == ".json" else "toml")
    check_choice("--format", chosen, FILE_FORMATS)
    check_choice("--by", by, BY)
    exported = export_best(open_study(study_name, storage), by)
    text = exported.to_json() if chosen == "json" else exported.to_toml(out)
    if out is None:
        write_result(text)
        return
    write_out(out, text)
    provenance = exported.provenance
    print_line(f"trial {provenance['trial']} of study `{provenance['study']}` is in {out}; to train it:")
    print_line(f"  {hint('train', file_argument(out), '--out', 'runs/best')}")


def export(
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    table: Annotated[
        str,
        typer.Option(
            metavar="trials|tasks|curves",
            help="trials: one row per trial. tasks: one per ended trial and task. curves: one per report.",
        ),
    ] = "trials",
    out: Annotated[Path | None, typer.Option(help="File to write. By default standard output.")] = None,
    format: Annotated[
        str,
        typer.Option(metavar="csv|json|parquet", help="File format. By default that of the file's name, or csv."),
    ] = "",
) -> None:
    """Export the trials of a study as a table.

    docs/reference/files-and-tables.md lists the columns with their units. The study may be running.

    Examples:
        miiii-search export --study demo --out trials.csv
        miiii-search export --study demo --table curves --out curves.parquet
        miiii-search export --study demo --format json
    """
    from miiii_search.study.tables import TABLE_FORMATS, TABLE_KINDS, read_table, write_table

    ending = out.suffix.removeprefix(".") if out else ""
    chosen = format or (ending if ending in TABLE_FORMATS else "csv")
    check_choice("--format", chosen, TABLE_FORMATS)
    check_choice("--table", table, TABLE_KINDS)
    if out is None and chosen == "parquet":
        raise MiiiiSearchError("a Parquet file cannot be shown; add --out FILE, or choose --format csv")
    study = open_study(study_name, storage)
    found = read_table(study, cast("Any", table))
    data = write_table(found, cast("Any", chosen))
    if out is None:
        write_result(data.decode())
        return
    write_out(out, data)
    print_line(f"the {table} of study `{study.name}` are in {out}: {len(found.rows):,} rows")


def train(
    file: Annotated[Path | None, typer.Argument(help="Configuration file that `best` wrote.")] = None,
    preset: Annotated[str | None, typer.Option(help="Preset: demo, fast, narrow, paper or authors-code.")] = None,
    config: Annotated[
        str | None, typer.Option(help="Name of a configuration of the preset, such as paper-best.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for metrics, weights and curves.")] = Path("runs/latest"),
    # Without the variables MIIII_SET and MIIII_PRESET, which are meant for studies: a file is trained unchanged.
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the run. Repeatable.")
    ] = None,
) -> None:
    """Train one configuration.

    The configuration comes from a file or from a preset. If a file holds metrics, the command says whether the run
    repeats them.

    After a request to stop (Ctrl-C, SIGTERM or a closed terminal), the part trained so far is written, unless the
    folder holds another run. A second Ctrl-C or SIGTERM ends the command at once.

    Examples:
        miiii-search train best.toml --out runs/best
        miiii-search train --preset paper --config paper-best --out runs/table-2
    """
    from miiii_search.cli.views.train import choose_configuration, train_to_folder
    from miiii_search.training.jax_environment import import_jax

    chosen = choose_configuration(file, preset, config, settings or [])
    report_removed_variables()
    import_jax()
    stop = signals.stop_on_signals()
    if not train_to_folder(chosen, out, compare_with_recorded=not settings, stop=stop.is_set):
        raise typer.Exit(exit_codes.STOPPED)


def export_weights(
    run_folder: RunFolderArgument = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("weights.safetensors"),
    format: Annotated[
        str,
        typer.Option(
            metavar="transformer-lens|safetensors",
            help="transformer-lens: names and shapes of HookedTransformer. safetensors: those of this program.",
        ),
    ] = "safetensors",
    trial: TrialOption = None,
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Export the weights of a trained network.

    docs/how-to/export-weights.md describes the formats and how to load them.

    Examples:
        miiii-search export-weights runs/best --out network.safetensors
        miiii-search export-weights runs/best --format transformer-lens
        miiii-search export-weights --study demo --trial 3
    """
    from miiii_search.cli.views.export_weights import export_weights

    run, problems = _read_run_or_trial(run_folder, trial, study_name, storage)
    for line in export_weights(run, problems, format, out):
        print_line(f"note: {line}")
    print_line(f"the weights are in {out}")


def _read_run_or_trial(
    folder: Path | None, trial: int | None, study_name: str | None, storage: str
) -> tuple[TrainedRun, list[str]]:
    """Return the run of a folder or of a trial, and one line for each of its files that cannot be read.

    Raises:
        MiiiiSearchError: Neither or both of `folder` and `trial` are given, or there is no such run.
    """
    if folder is None and trial is None:
        raise MiiiiSearchError(
            "export-weights needs a run's folder or a trial, one of the two, but neither was given; "
            "add RUN_DIR, or --trial N for a trial of a study"
        )
    if folder is not None:
        check_only_folder(folder, trial)
        from miiii_search.runs.run_folder import read_run

        return read_run(folder)
    from miiii_search.runs.trial_runs import find_finished_trial, read_trial_run

    assert trial is not None
    study = open_study(study_name, storage)
    return read_trial_run(study, find_finished_trial(study, trial), None)
