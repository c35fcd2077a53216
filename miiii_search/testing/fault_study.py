"""The study that is trained under faults, and the results of its trials without any fault."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState

from miiii_search.testing.processes import Processes, read_trials

STUDY = "faults"
"""Name of the study."""

EPOCHS = int(os.environ.get("MIIII_FAULT_EPOCHS", "40000"))
"""Epochs per trial, which take a few seconds."""

LEASE_SECONDS = 4.0

SMALL_RUN = (
    *("--set", "experiment.p=13", "--set", "experiment.validation_samples=20", "--set", "hyperparameters.d_model=16"),
    *("--set", "experiment.target_accuracy=1.0", "--set", "experiment.evaluate_every=50"),
)
"""Settings that make an epoch fast."""


@dataclass(frozen=True)
class FinishedTrial:
    """The result of a completed trial, which faults must not change."""

    weights: str
    """SHA-256 of the final weights."""
    reports: dict[int, float]
    """Reported accuracies by epoch."""


def create_command(trials: int, epochs: int = EPOCHS, lease_seconds: float = LEASE_SECONDS) -> tuple[str, ...]:
    """Return the command that creates a study whose trials differ only in their seeds, and few of which end early.

    Args:
        trials: Number of trials.
        epochs: Epochs per trial.
        lease_seconds: Seconds after which a silent worker loses its trials.
    """
    return (
        *("create", "--study", STUDY, "--preset", "demo", *SMALL_RUN, "--set", f"replicates={trials}"),
        *("--set", "space.dropout=[0.5]", "--set", "space.weight_decay=[1.0]", "--set", "space.grokfast_lambda=[0.0]"),
        *("--set", f"experiment.epochs={epochs}", "--set", "pruning.rule=none"),
        *("--set", f"lease_seconds={lease_seconds}"),
    )


def finished_by_seed(trials: Sequence[optuna.trial.FrozenTrial]) -> dict[int, FinishedTrial]:
    """Return the results of the completed trials by their seeds."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
    return {
        trial.user_attrs["seed"]: FinishedTrial(
            trial.user_attrs["metrics"]["weights_sha256"], trial.intermediate_values
        )
        for trial in complete
    }


def run_without_faults(folder: Path, trials: int, epochs: int = EPOCHS) -> dict[int, FinishedTrial]:
    """Train a study without faults, in a SQLite database, and return the results of its trials by their seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    processes, storage = Processes(folder), f"sqlite:///{folder}/study.db"
    try:
        processes.run(*create_command(trials, epochs), storage=storage)
        worker = processes.start("work", "--study", STUDY, "--lanes", "2", storage=storage)
        assert worker.wait(120 + 30 * trials) == 0, processes.log(worker)
        return finished_by_seed(read_trials(storage, STUDY))
    finally:
        processes.close()
