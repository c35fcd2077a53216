"""The command `train`: choosing a configuration, training it, and writing the folder of the run."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from miiii_search.cli.views.console import console, print_line
from miiii_search.cli.views.tables import Column, FittedTable
from miiii_search.cli.views.training_progress import train_with_progress
from miiii_search.config.overrides import apply_settings, to_tree
from miiii_search.config.presets import get_configuration
from miiii_search.errors import MiiiiSearchError, reason
from miiii_search.experiment.metrics import compare_metrics, format_accuracy
from miiii_search.experiment.record import Floats
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
    from miiii_search.training.run import TrainingResult

STOPPED = "stopped_at_epoch"
"""Key in the provenance of a run that was stopped before its end."""


class RunSettings(Spec):
    """All fields that `train --set` can change."""

    experiment: Experiment
    hyperparameters: Hyperparameters


def choose_configuration(
    file: Path | None, preset: str | None, config: str | None, settings: Sequence[str]
) -> Configuration:
    """Return the configuration that the options of `train` select.

    Args:
        file: A configuration file.
        preset: Name of a preset. Exactly one of `file` and `preset` must be given.
        config: Name of a configuration of the preset.
        settings: Changes as "KEY=VALUE".

    Raises:
        MiiiiSearchError: The options contradict each other, or one of them has a value that is not allowed.
    """
    if (file is None) == (preset is None):
        given = "neither was given" if file is None else f"both were given: {file} and --preset {preset}"
        raise MiiiiSearchError(
            f"train needs a configuration file or a --preset, one of the two, but {given}; type for example "
            "miiii-search train best.toml, or miiii-search train --preset paper"
        )
    if file is not None:
        if config is not None:
            raise MiiiiSearchError(
                f"--config {config} selects a configuration of a --preset, but {file} holds only one; "
                "leave out --config, or give --preset instead of the file"
            )
        chosen = read_configuration(file)
    else:
        assert preset is not None
        chosen = Configuration(*get_configuration(preset, config), metrics=None, provenance={})
    unchanged = RunSettings(experiment=chosen.experiment, hyperparameters=chosen.hyperparameters)
    changed = apply_settings(RunSettings, to_tree(unchanged), settings)
    return replace(chosen, experiment=changed.experiment, hyperparameters=changed.hyperparameters)


def train_to_folder(
    chosen: Configuration,
    out: Path,
    *,
    compare_with_recorded: bool,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train a configuration with a progress bar and write the folder of the run.

    The folder gets the configuration, metrics, record, weights, snapshots and learning curves.

    Args:
        chosen: The configuration.
        out: The folder.
        compare_with_recorded: Whether to print if the run repeats the metrics that were recorded with `chosen`.
        stop: Called between chunks of epochs. If it returns True, training ends and the part trained so far is
            written, unless the folder holds another run. The written configuration says at which epoch it stopped.

    Returns:
        Whether the run was trained to its end.

    Raises:
        MiiiiSearchError: `out` cannot be written, is being written by another process, or holds files that are not part
            of a run; the loss stopped being finite; or the run does not fit into memory.
    """
    with open_output(out, check_run_folder) as output:
        return _train_to_output(chosen, output, compare_with_recorded, stop)


def _train_to_output(
    chosen: Configuration, output: OutputFolder, compare_with_recorded: bool, stop: Callable[[], bool]
) -> bool:
    from miiii_search.training.device import describe_device

    experiment, device, started = chosen.experiment, describe_device(), time.monotonic()
    result, spectra = train_with_progress(experiment, chosen.hyperparameters, output.unfinished / SNAPSHOTS, stop=stop)
    provenance = _provenance(device, time.monotonic() - started)
    solved = result.progress.solved_epoch
    summary = f"solved at epoch {solved:,}" if solved else f"not solved in {experiment.epochs:,} epochs"
    is_complete = result.progress.ended
    if not is_complete:
        epoch = result.progress.epoch
        provenance[STOPPED] = epoch
        summary = f"stopped at epoch {epoch:,} of {experiment.epochs:,}"
        if contains_run(output.path):
            print_line(f"{summary}; nothing was written: {output.path} holds another run")
            return False
    trained = replace(chosen, metrics=result.metrics, provenance=provenance)
    _print_accuracies(trained)
    _write_run(output, _run_files(trained, result, spectra))
    print_line(f"{summary}; metrics, weights and curves are in {output.path}")
    if is_complete and chosen.metrics is not None and compare_with_recorded:
        print_line(_comparison_with_recorded(chosen, result))
    return is_complete


def _provenance(device: str, seconds: float) -> dict[str, Any]:
    """Return where, when and with which versions a run was trained."""
    from miiii_search.training.device import package_versions
    from miiii_search.training.numerics import describe_numerics

    provenance = {
        "completed": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "seconds": round(seconds, 3),
        "versions": package_versions(),
        "numerics": describe_numerics(),
    }
    if (commit := source_commit()) is not None:
        provenance["git_commit"] = commit
    return provenance


def _run_files(trained: Configuration, result: TrainingResult, spectra: dict[int, Floats]) -> dict[str, bytes]:
    """Return the files of a run by name, without its snapshots."""
    experiment = trained.experiment
    files = {
        WEIGHTS: save(result.weights),
        RECORD: result.record.to_npz(spectra, moduli=np.asarray(experiment.task_moduli)),
        METRICS: f"{result.metrics.model_dump_json(indent=2, exclude_none=True)}\n".encode(),
        CONFIG: trained.to_toml().encode(),
    }
    try:
        from miiii_search.analysis.figures.curves import learning_curves

        title = f"{experiment.task}, p = {experiment.p}"
        files[CURVES] = learning_curves(experiment, result.record, title, result.progress.solved_epoch)
    except Exception as error:
        print_line(f"warning: the learning curves could not be drawn: {reason(error)}")
    return files


def _write_run(output: OutputFolder, files: Mapping[str, bytes]) -> None:
    """Write the files of a run and remove those of an earlier run.

    If the disk is full, snapshots and learning curves are left out first. If that is not enough, the other files are
    written to a temporary folder.

    Raises:
        MiiiiSearchError: The files could not be written to the output folder. The message names the temporary folder.
    """
    snapshots = output.unfinished / SNAPSHOTS
    try:
        snapshots.mkdir(exist_ok=True)  # an empty folder replaces the snapshots of an earlier run, too
        _write_needed(output.unfinished, {name: data for name, data in files.items() if name != CURVES}, snapshots)
        try:
            _write_all(output.unfinished, {CURVES: files[CURVES]} if CURVES in files else {})
        except OSError as error:
            print_line(f"warning: the learning curves were not written: {reason(error)}")
        if not (output.unfinished / CURVES).exists():
            (output.path / CURVES).unlink(missing_ok=True)  # the curves of an earlier run
        output.publish()
    except OSError as error:
        why = f"cannot write to {output.path}: {reason(error)}"
        try:
            folder = Path(tempfile.mkdtemp(prefix="miiii-search-run-"))
            _write_all(folder, files)
        except OSError:
            raise MiiiiSearchError(f"{why}; choose another --out") from None
        raise MiiiiSearchError(f"{why}; the run was written to {folder} instead, without snapshots") from None


def _write_needed(folder: Path, files: Mapping[str, bytes], snapshots: Path) -> None:
    """Write files; if there is no space for them, remove the snapshots and try again.

    Raises:
        OSError: There are no snapshots to remove, or the second attempt failed, too.
    """
    try:
        _write_all(folder, files)
    except OSError as error:
        if not any(snapshots.iterdir()):
            raise
        print_line(f"warning: the snapshots were removed to make space for the run: {reason(error)}")
        shutil.rmtree(snapshots)
        snapshots.mkdir()
        _write_all(folder, files)


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        write_file(folder / name, data)


def _comparison_with_recorded(recorded: Configuration, result: TrainingResult) -> str:
    """Return a line that says whether a run repeats the recorded metrics."""
    assert recorded.metrics is not None
    if (epoch := recorded.provenance.get(STOPPED)) is not None:
        return f"not compared: the recorded run was stopped at epoch {epoch:,}"
    verdict, why = compare_metrics(recorded.metrics, result.metrics)
    return f"{verdict}: {why}"


def _print_accuracies(trained: Configuration) -> None:
    """Print a table of the final accuracies, one row per task."""
    assert trained.metrics is not None
    metrics = trained.metrics
    accuracies = {
        "training": metrics.train_accuracy,
        "validation": metrics.validation_accuracy,
        "test": metrics.test_accuracy,
    }
    console.print(
        FittedTable(
            [
                Column("q", [str(q) for q in metrics.moduli]),
                Column("chance", [f"{1 / count:.3f}" for count in trained.experiment.classes]),
                *(Column(name, [format_accuracy(value) for value in values]) for name, values in accuracies.items()),
            ]
        )
    )
