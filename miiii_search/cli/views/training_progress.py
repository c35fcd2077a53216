"""Training one run with a progress bar, or with a line every 20 seconds if standard output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import table as rich_table
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from miiii_search.cli.views.console import LINE_SECONDS, console, print_line
from miiii_search.errors import MiiiiSearchError, NonFiniteLossError, OutOfMemoryError, reason
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.experiment.record import Floats, Record, WeightSnapshot, write_snapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters

if TYPE_CHECKING:
    from miiii_search.training.lane_state import RunProgress
    from miiii_search.training.run import TrainingResult


def train_with_progress(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    snapshot_folder: Path,
    until: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[TrainingResult, dict[int, Floats]]:
    """Train one run and show its progress.

    Args:
        experiment: The task, its data and the length of the run.
        hyperparameters: Those of the network and its optimizer.
        snapshot_folder: Folder for the weights at log-spaced epochs. A snapshot that cannot be written is skipped
            with a warning.
        until: Last epoch to train. None: the epoch budget of the experiment.
        stop: Called between chunks of epochs; training ends as soon as it returns True.

    Returns:
        The result, and the spectra by epoch.

    Raises:
        MiiiiSearchError: The loss stopped being finite, or the run does not fit into memory.
    """
    from miiii_search.training import run
    from miiii_search.training.device import use_compilation_cache

    use_compilation_cache()
    spectra: dict[int, Floats] = {}

    def keep_snapshot(snapshot: WeightSnapshot) -> None:
        spectra[snapshot.epoch] = snapshot.spectrum
        try:
            write_snapshot(snapshot_folder, snapshot)
        except OSError as error:
            print_line(f"warning: the snapshot of epoch {snapshot.epoch:,} was not written: {reason(error)}")

    with training_bar() as bar:
        n_epochs = until or experiment.epochs
        task = bar.add_task("compiling", total=n_epochs, accuracy="")
        show = _progress_callback(bar, task, n_epochs, np.asarray(experiment.scored))
        try:
            result = run.train(experiment, hyperparameters, show, keep_snapshot, until, stop)
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


def _progress_callback(
    bar: Progress, task: TaskID, n_epochs: int, scored: np.ndarray
) -> Callable[[RunProgress, Record], None]:
    """Return a callback that shows epochs and accuracies, the mean over the tasks selected by `scored`."""
    printed_at = time.monotonic()

    def show(progress: RunProgress, new: Record) -> None:
        nonlocal printed_at
        train, validation = (
            format_accuracy(getattr(new, name)[-1][scored].mean()) for name in ("train_accuracy", "validation_accuracy")
        )
        accuracy = f"accuracy {train}, validation {validation}"
        bar.update(task, completed=progress.epoch, description="training", accuracy=accuracy)
        if not console.is_interactive and time.monotonic() - printed_at >= LINE_SECONDS:
            printed_at = time.monotonic()
            print_line(f"epoch {progress.epoch:,} of {n_epochs:,} · training {accuracy}")

    return show


def training_bar() -> Progress:
    """Return a progress bar with epochs, accuracies, the time elapsed and the time left."""
    unwrapped = rich_table.Column(no_wrap=True)  # in a narrow terminal only the bar becomes shorter
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=unwrapped),
        TextColumn("{task.fields[accuracy]}"),
        TimeElapsedColumn(table_column=unwrapped),
        TimeRemainingColumn(table_column=unwrapped),
        console=console,
    )
