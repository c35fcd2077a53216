"""Training one configuration by hand: a file's or a preset's, with files at the end."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import table as rich_table
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors.numpy import save

from miiii_search.cli.views.display import LINE_SECONDS, console
from miiii_search.cli.views.tables import Column, Fitted
from miiii_search.config.overrides import apply_settings, to_tree
from miiii_search.config.presets import get_configuration
from miiii_search.errors import MiiiiSearchError, NonFiniteLossError, OutOfMemoryError, reason
from miiii_search.experiment.metrics import compare_metrics, format_accuracy
from miiii_search.experiment.record import Floats, Record, WeightSnapshot, write_snapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters, Spec
from miiii_search.files import write_file
from miiii_search.runs.output_folder import OutputFolder, open_output
from miiii_search.runs.run_folder import (
    CONFIG,
    CURVES,
    METRICS,
    RECORD,
    SNAPSHOTS,
    WEIGHTS,
    check_run_folder,
    contains_run,
)
from miiii_search.study.export import Configuration, read_configuration
from miiii_search.worker.provenance import source_commit

if TYPE_CHECKING:
    from miiii_search.training.lane_state import RunProgress
    from miiii_search.training.run import TrainingResult


STOPPED = "stopped_at_epoch"
"""In the provenance of a run that somebody stopped."""


class Run(Spec):
    """What `--set` edits."""

    experiment: Experiment
    hyperparameters: Hyperparameters


def choose(file: Path | None, preset: str | None, config: str | None, settings: Sequence[str]) -> Configuration:
    """The configuration that the options name. Raises `MiiiiSearchError`."""
    if (file is None) == (preset is None):
        raise MiiiiSearchError("give a configuration file or a --preset, one of the two; for example --preset paper")
    if file is not None:
        if config is not None:
            raise MiiiiSearchError("--config names a configuration of a --preset; a file holds just one")
        chosen = read_configuration(file)
    else:
        assert preset is not None
        chosen = Configuration(*get_configuration(preset, config), metrics=None, provenance={})
    run = Run(experiment=chosen.experiment, hyperparameters=chosen.hyperparameters)
    edited = apply_settings(Run, to_tree(run), settings)
    return replace(chosen, experiment=edited.experiment, hyperparameters=edited.hyperparameters)


def retrain(
    chosen: Configuration,
    out: Path,
    *,
    compare_with_recorded: bool,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Trains with a progress bar and writes its configuration, metrics, record, weights, snapshots and curves to `out`.

    Returns whether the run came to its end. If `stop` becomes true before, what was trained by then is written, and
    the configuration says so; not over another run.

    Raises:
        MiiiiSearchError: `out` cannot be written, is being written by another process, or holds files that are not of a
            run; the loss stopped being finite, or the run does not fit into memory.
    """
    with open_output(out, check_run_folder) as output:
        return _retrain(chosen, output, compare_with_recorded, stop)


def _retrain(
    chosen: Configuration, output: OutputFolder, compare_with_recorded: bool, stop: Callable[[], bool]
) -> bool:
    from miiii_search.training.device import describe_device, package_versions
    from miiii_search.training.numerics import describe_numerics

    experiment, hyperparameters = chosen.experiment, chosen.hyperparameters
    device, started = describe_device(), time.monotonic()
    result, spectra = train_visibly(experiment, hyperparameters, output.unfinished / SNAPSHOTS, stop=stop)
    provenance = {
        "completed": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "seconds": round(time.monotonic() - started, 3),
        "versions": package_versions(),
        "numerics": describe_numerics(),
    }
    if (commit := source_commit()) is not None:
        provenance["git_commit"] = commit
    epoch, whole = result.progress.epoch, result.progress.ended
    if not whole:
        provenance[STOPPED] = epoch
        stopped = f"stopped at epoch {epoch:,} of {experiment.epochs:,}"
        if contains_run(output.path):
            _say(f"{stopped}; nothing was written: {output.path} holds another run")
            return False
    trained = replace(chosen, metrics=result.metrics, provenance=provenance)
    _print_tasks(trained)
    _write(output, _files(trained, result, spectra))
    solved = result.progress.solved_epoch
    how = f"solved at epoch {solved:,}" if solved else f"not solved in {experiment.epochs:,} epochs"
    _say(f"{how if whole else stopped}; metrics, weights and curves are in {output.path}")
    if whole and chosen.metrics is not None and compare_with_recorded:
        _say(_verdict(chosen, result))
    return whole


def _files(trained: Configuration, result: TrainingResult, spectra: dict[int, Floats]) -> dict[str, bytes]:
    """All of a run's files but its snapshots."""
    experiment = trained.experiment
    files = {
        WEIGHTS: save(result.weights),
        RECORD: result.record.to_npz(spectra, moduli=np.asarray(experiment.moduli)),
        METRICS: f"{result.metrics.model_dump_json(indent=2, exclude_none=True)}\n".encode(),
        CONFIG: trained.to_toml().encode(),
    }
    try:
        from miiii_search.analysis.curves import learning_curves

        title = f"{experiment.task}, p = {experiment.p}"
        files[CURVES] = learning_curves(experiment, result.record, title, result.progress.solved_epoch)
    except Exception as error:
        _say(f"warning: the learning curves could not be drawn: {reason(error)}")
    return files


def _write(output: OutputFolder, files: Mapping[str, bytes]) -> None:
    """Writes a run's files in place of those of another; to a temporary folder if there is no space for them.

    Raises `MiiiiSearchError` in that case.
    """
    snapshots = output.unfinished / SNAPSHOTS
    needed = {name: data for name, data in files.items() if name != CURVES}
    try:
        snapshots.mkdir(exist_ok=True)  # without any, those of another run are to go
        try:
            _write_all(output.unfinished, needed)
        except OSError as error:
            if not any(snapshots.iterdir()):
                raise
            _say(f"warning: the snapshots were removed to make space for the run: {reason(error)}")
            shutil.rmtree(snapshots)
            snapshots.mkdir()
            _write_all(output.unfinished, needed)
        try:
            _write_all(output.unfinished, {CURVES: files[CURVES]} if CURVES in files else {})
        except OSError as error:
            _say(f"warning: the learning curves were not written: {reason(error)}")
        if not (output.unfinished / CURVES).exists():
            (output.path / CURVES).unlink(missing_ok=True)  # those of another run
        output.publish()
    except OSError as error:
        why = f"cannot write to {output.path}: {reason(error)}"
        try:
            folder = Path(tempfile.mkdtemp(prefix="miiii-search-run-"))
            _write_all(folder, files)
        except OSError:
            raise MiiiiSearchError(f"{why}; choose another --out") from None
        raise MiiiiSearchError(f"{why}; the run was written to {folder} instead, without snapshots") from None


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        write_file(folder / name, data)


def _verdict(recorded: Configuration, result: TrainingResult) -> str:
    """Whether the run repeats what the file recorded."""
    assert recorded.metrics is not None
    if (epoch := recorded.provenance.get(STOPPED)) is not None:
        return f"not compared: what the file recorded was stopped at epoch {epoch:,}"
    verdict, why = compare_metrics(recorded.metrics, result.metrics)
    return f"{verdict}: {why}"


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def train_visibly(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    snapshots: Path,
    until: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[TrainingResult, dict[int, Floats]]:
    """Trains one run, to the epoch `until` or until `stop`, with a progress bar; returns it with its spectra by epoch.

    Where there is no terminal, a line now and then says how far it is.

    Its weights at log-spaced epochs go to the folder `snapshots`. Those that cannot be written are done without, with
    a warning. Raises `MiiiiSearchError` if the loss stops being finite, or if the run does not fit into memory.
    """
    from miiii_search.training import run
    from miiii_search.training.device import use_compilation_cache

    use_compilation_cache()
    spectra: dict[int, Floats] = {}

    def keep(look: WeightSnapshot) -> None:
        spectra[look.epoch] = look.spectrum
        try:
            write_snapshot(snapshots, look)
        except OSError as error:
            _say(f"warning: the snapshot of epoch {look.epoch:,} was not written: {reason(error)}")

    with training_bar() as bar:
        task = bar.add_task("compiling", total=until or experiment.epochs, accuracy="")
        said = time.monotonic()

        def show(progress: RunProgress, new: Record) -> None:
            nonlocal said
            scored = np.asarray(experiment.scored)
            train, validation = (
                format_accuracy(getattr(new, name)[-1][scored].mean())
                for name in ("train_accuracy", "validation_accuracy")
            )
            accuracy = f"accuracy {train}, validation {validation}"
            bar.update(task, completed=progress.epoch, description="training", accuracy=accuracy)
            if not console.is_interactive and time.monotonic() - said >= LINE_SECONDS:
                said = time.monotonic()
                _say(f"epoch {progress.epoch:,} of {until or experiment.epochs:,} · training {accuracy}")

        try:
            result = run.train(experiment, hyperparameters, show, keep, until, stop)
        except NonFiniteLossError as error:
            raise MiiiiSearchError(
                f"the loss was not finite at epoch {error.epoch:,}; a lower learning_rate may help"
            ) from None
        except OutOfMemoryError as error:
            needs = f", it needs about {error.size / 2**20:,.0f} MiB" if error.size else ""
            raise MiiiiSearchError(
                f"the run does not fit into the memory of this machine{needs} ({error}); use a larger one, or a "
                "smaller p, d_model or validation_samples"
            ) from None
        bar.update(task, total=result.progress.epoch)
    return result, spectra


def training_bar() -> Progress:
    """A progress bar with the epochs, the accuracies, the time taken and the time left."""
    whole = rich_table.Column(no_wrap=True)  # the bar alone becomes narrower where there is little room
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=whole),
        TextColumn("{task.fields[accuracy]}"),
        TimeElapsedColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        console=console,
    )


def _print_tasks(trained: Configuration) -> None:
    """The accuracy of every task at the end."""
    assert trained.metrics is not None
    metrics = trained.metrics
    accuracies = {
        "training": metrics.train_accuracy,
        "validation": metrics.validation_accuracy,
        "test": metrics.test_accuracy,
    }
    console.print(
        Fitted(
            [
                Column("q", [str(q) for q in metrics.moduli]),
                Column("chance", [f"{1 / q:.3f}" for q in metrics.moduli]),
                *(Column(name, [format_accuracy(value) for value in values]) for name, values in accuracies.items()),
            ]
        )
    )
