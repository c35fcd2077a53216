"""The objective that a study maximises."""

from __future__ import annotations

from miiii_search.experiment.spec import Experiment

OBJECTIVE_NAME = "accuracy + epochs saved"
"""The name of the objective in the dashboard; see `objective`."""


def objective(experiment: Experiment, accuracy: float, epochs_to_solve: int | None) -> float:
    """What the study maximises: one number, so that the dashboard, a sampler and `best` agree.

    The mean validation accuracy over the scored tasks while a trial is not solved; 1 and the share of epochs
    that it saved once it is.
    """
    if epochs_to_solve is None:
        return accuracy
    return 1 + (1 - epochs_to_solve / experiment.epochs)
