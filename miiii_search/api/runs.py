"""Single runs: training one, reading one from its folder, and analyzing what its network learned."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.api.progress_bar import progress_bar
from miiii_search.experiment.record import Floats, Record, WeightSnapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.study.export import Configuration, read_configuration

if TYPE_CHECKING:
    from miiii_search.analysis.findings import Findings
    from miiii_search.training.lane_state import RunProgress

logger = logging.getLogger("miiii_search")


def train(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    *,
    name: str = "run",
    progress: bool = False,
) -> TrainedRun:
    """Train one run in this process, on JAX's default device.

    Args:
        experiment: The task, its data and the length of the run.
        hyperparameters: Those of the network and its optimizer.
        name: Name of the run in figures and tables.
        progress: Whether to show a progress bar.

    Returns:
        The run: `metrics`, `record` (one row per evaluation), `weights` (arrays by name) and `spectra` by epoch.

    Raises:
        NonFiniteLossError: The loss stopped being finite.
        OutOfMemoryError: The run does not fit into the device's memory.

    Example:
        >>> import miiii_search as ms
        >>> experiment = ms.Experiment(p=7, epochs=32, evaluate_every=8, validation_samples=10)
        >>> run = ms.train(experiment, ms.Hyperparameters(d_model=16, n_heads=2))
        >>> run.record.validation_accuracy.shape  # evaluations, tasks
        (4, 3)
    """
    from miiii_search.training import run as training

    spectra: dict[int, Floats] = {}

    def keep_spectrum(snapshot: WeightSnapshot) -> None:
        spectra[snapshot.epoch] = snapshot.spectrum

    with progress_bar("training", experiment.epochs, shown=progress) as advance:

        def show(reached: RunProgress, new: Record) -> None:
            logger.debug("epoch %d of %d", reached.epoch, experiment.epochs, extra={"epoch": reached.epoch})
            advance(reached.epoch)

        result = training.train(experiment, hyperparameters, on_progress=show, on_snapshot=keep_spectrum)
    return TrainedRun(name, experiment, hyperparameters, result.metrics, result.record, spectra, result.weights)


def load_run(folder: str | Path) -> TrainedRun:
    """Read a run that `miiii-search train` wrote.

    A file that cannot be read is left out, with a warning in the log.

    Args:
        folder: The run's folder.

    Returns:
        The run. Its snapshots are files, which are read when they are needed.

    Raises:
        MiiiiSearchError: The folder is not one of a run, or its configuration cannot be read.

    Example:
        >>> import miiii_search as ms
        >>> run = ms.load_run("runs/best")
        >>> run.weights["query"].shape  # d_model, heads, d_head
        (16, 2, 8)
    """
    from miiii_search.runs.run_folder import read_run

    run, problems = read_run(Path(folder))
    for problem in problems:
        logger.warning(problem)
    return run


def analyze(run: TrainedRun, out: str | Path | None = None) -> Findings:
    """Compute what a network learned: its circuits, its frequencies, and when they formed.

    Args:
        run: The run. Findings that need a part which the run lacks, such as its weights, are left out.
        out: Folder for the figures, `numbers.json` and the page `report.html`. By default nothing is written.

    Returns:
        The findings as arrays; see `miiii_search.analysis.findings.Findings`.

    Raises:
        MiiiiSearchError: The folder cannot be written, or contains files of other origin that would be replaced.

    Example:
        >>> import miiii_search as ms
        >>> findings = ms.analyze(ms.load_run("runs/best"))
        >>> findings.ablations[-1].frequencies.shape  # frequencies of p = 7, tasks
        (3, 3)
    """
    from miiii_search.analysis import findings as analysis

    findings = analysis.analyze(run)
    if out is not None:
        from miiii_search.runs.report_folder import write_report

        write_report(findings, Path(out))
    return findings


def load_configuration(file: str | Path) -> Configuration:
    """Read a configuration that `Study.export_best`, `miiii-search best` or `miiii-search train` wrote.

    Args:
        file: The TOML file.

    Returns:
        The configuration: `experiment`, `hyperparameters`, and the `metrics` that were recorded with it.

    Raises:
        MiiiiSearchError: The file cannot be read, or is not a configuration.

    Example:
        >>> import miiii_search as ms
        >>> configuration = ms.load_configuration("runs/best/config.toml")
        >>> configuration.hyperparameters.d_model
        16
    """
    return read_configuration(Path(file))
