"""The objective that a study maximizes."""

from __future__ import annotations

from miiii_search.experiment.spec import Experiment

OBJECTIVE_NAME = "accuracy + epochs saved"
"""Name of the objective in the dashboard; see `objective`."""


def objective(experiment: Experiment, accuracy: float, epochs_to_solve: int | None) -> float:
    """Return the value of a trial, the single number that the dashboard, samplers and `best` compare.

    An unsolved trial has its accuracy as its value, at most 1. A solved trial has 1 plus the fraction of the epoch
    budget that it saved: `1 + (1 - epochs_to_solve / epochs)`.

    Args:
        experiment: The trial's experiment, which has the epoch budget.
        accuracy: Mean validation accuracy over the scored tasks, between 0 and 1.
        epochs_to_solve: Epoch at which every scored task was solved; None if the trial was not solved.
    """
    if epochs_to_solve is None:
        return accuracy
    return 1 + (1 - epochs_to_solve / experiment.epochs)
