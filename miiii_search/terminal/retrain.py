"""Training one configuration by hand: a file's or a preset's, with files at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors.numpy import save

from miiii_search.errors import UserError
from miiii_search.experiment.metrics import compare
from miiii_search.experiment.spec import Experiment, Hyperparameters, Spec
from miiii_search.experiment.telemetry import Floats, Look, Record, snapshots_in, write_snapshot
from miiii_search.search.export import Configuration, read_configuration
from miiii_search.search.presets import get_configuration
from miiii_search.search.provenance import source_commit
from miiii_search.search.run_folder import CONFIG, METRICS, RECORD, SNAPSHOTS, WEIGHTS
from miiii_search.search.settings import to_tree, with_settings
from miiii_search.terminal.display import console

if TYPE_CHECKING:
    from miiii_search.experiment.run import Result
    from miiii_search.experiment.stores import Progress as RunProgress


class Run(Spec):
    """What `--set` edits."""

    experiment: Experiment
    hyperparameters: Hyperparameters


def choose(file: Path | None, preset: str | None, config: str | None, settings: Sequence[str]) -> Configuration:
    """The configuration that the options name. Raises `UserError`."""
    if (file is None) == (preset is None):
        raise UserError("give a configuration file or a --preset, one of the two; for example --preset paper")
    if file is not None:
        if config is not None:
            raise UserError("--config names a configuration of a --preset; a file holds just one")
        chosen = read_configuration(file)
    else:
        assert preset is not None
        chosen = Configuration(*get_configuration(preset, config), metrics=None, provenance={})
    run = Run(experiment=chosen.experiment, hyperparameters=chosen.hyperparameters)
    edited = with_settings(Run, to_tree(run), settings)
    return replace(chosen, experiment=edited.experiment, hyperparameters=edited.hyperparameters)


def retrain(chosen: Configuration, out: Path, *, compare_with_recorded: bool) -> None:
    """Trains with a progress bar and writes its configuration, metrics, record, weights, snapshots and curves to `out`.

    Raises `UserError` if `out` cannot be written, before training, or if the loss stops being finite.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror}; choose another --out") from None
    from miiii_search.analysis.curves import learning_curves
    from miiii_search.experiment.device import describe_device, package_versions

    experiment, hyperparameters = chosen.experiment, chosen.hyperparameters
    device, started = describe_device(), time.monotonic()
    result, spectra = train_visibly(experiment, hyperparameters, out / SNAPSHOTS)
    provenance = {
        "completed": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "seconds": round(time.monotonic() - started, 3),
        "versions": package_versions(),
    }
    if (commit := source_commit()) is not None:
        provenance["git_commit"] = commit
    trained = replace(chosen, metrics=result.metrics, provenance=provenance)
    title = f"{experiment.task}, p = {experiment.p}"
    solved = result.progress.solved_epoch
    (out / WEIGHTS).write_bytes(save(result.weights))
    (out / RECORD).write_bytes(result.record.to_npz(spectra, moduli=np.asarray(experiment.moduli)))
    (out / "learning-curves.png").write_bytes(learning_curves(experiment, result.record, title, solved))
    (out / METRICS).write_text(result.metrics.model_dump_json(indent=2, exclude_none=True) + "\n")
    (out / CONFIG).write_text(trained.to_toml(), encoding="utf-8")
    how = f"solved at epoch {solved:,}" if solved else f"not solved in {experiment.epochs:,} epochs"
    _print_tasks(trained)
    console.print(f"{how}; metrics, weights and curves are in {out}", soft_wrap=True)
    if chosen.metrics is not None and compare_with_recorded:
        verdict, why = compare(chosen.metrics, result.metrics)
        console.print(f"{verdict}: {why}", soft_wrap=True)


def train_visibly(
    experiment: Experiment, hyperparameters: Hyperparameters, snapshots: Path, until: int | None = None
) -> tuple[Result, dict[int, Floats]]:
    """Trains one run, to the epoch `until` at most, with a progress bar; returns it with its spectra by epoch.

    Its weights at log-spaced epochs go to the folder `snapshots`, in place of those of another run. Raises
    `UserError` if the loss stops being finite, or if the folder cannot be written.
    """
    from miiii_search.experiment import run
    from miiii_search.experiment.device import use_compilation_cache

    use_compilation_cache()
    spectra: dict[int, Floats] = {}
    for old in snapshots_in(snapshots).values():
        old.unlink()

    def keep(look: Look) -> None:
        spectra[look.epoch] = look.spectrum
        try:
            write_snapshot(snapshots, look)
        except OSError as error:
            raise UserError(f"cannot write to {snapshots}: {error.strerror}; choose another --out") from None

    with _progress_bar() as bar:
        task = bar.add_task("compiling", total=until or experiment.epochs, accuracy="")

        def show(progress: RunProgress, new: Record) -> None:
            scored = np.asarray(experiment.scored)
            train, validation = (
                f"{getattr(new, name)[-1][scored].mean():.3f}" for name in ("train_accuracy", "validation_accuracy")
            )
            bar.update(
                task,
                completed=progress.epoch,
                description="training",
                accuracy=f"accuracy: training {train}, validation {validation}",
            )

        try:
            result = run.train(experiment, hyperparameters, show, keep, until)
        except run.NotFinite as error:
            raise UserError(
                f"the loss was not finite at epoch {error.epoch:,}; a lower learning_rate may help"
            ) from None
        bar.update(task, total=result.progress.epoch)
    return result, spectra


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[accuracy]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _print_tasks(trained: Configuration) -> None:
    """The accuracy of every task at the end."""
    from rich.table import Table

    assert trained.metrics is not None
    metrics = trained.metrics
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("q", "chance", "training", "validation", "test"):
        table.add_column(name, justify="right")
    for q, *accuracies in zip(
        metrics.moduli,
        metrics.train_accuracy,
        metrics.validation_accuracy,
        metrics.test_accuracy,
        strict=True,
    ):
        table.add_row(str(q), f"{1 / q:.3f}", *(f"{accuracy:.3f}" for accuracy in accuracies))
    console.print(table)
