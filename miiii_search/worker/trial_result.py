"""The result of a trial: its state, its metrics, a note in words, and its artifacts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.trial import TrialState

from miiii_search.errors import reason
from miiii_search.experiment.metrics import Metrics, format_accuracy, summarize
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.runs.run_folder import RECORD
from miiii_search.storage.artifacts import LEARNING_CURVES, Artifact
from miiii_search.storage.trial_attrs import METRICS_KEY
from miiii_search.study.objective import objective
from miiii_search.trial_queue.results import TrialResult
from miiii_search.worker.active_trial import ActiveTrial


def make_result(trial: ActiveTrial, attributes: Mapping[str, object]) -> TrialResult:
    """Return the result of a trial that has ended, with its record and learning curves as artifacts.

    Args:
        trial: The trial.
        attributes: Attributes of the worker, which are stored together with the trial's own.
    """
    history, experiment, number = trial.history, trial.experiment, trial.lease.number
    progress, record, final_state = history.progress, history.record(), history.final_state
    assert final_state is not None
    own: dict[str, object] = {
        "seconds": history.seconds,
        "resumed": history.earlier_workers(),
        **attributes,
        "epochs_trained": progress.epoch,
        "epochs_to_solve": progress.solved_epoch,
        "seed": experiment.seed,
    }
    if progress.failed_epoch is not None:
        state, value = TrialState.FAIL, None
        note = f"Trial {number} failed: the loss was not finite at epoch {progress.failed_epoch:,}."
        own |= {"failed_epoch": progress.failed_epoch, "reason": note}
    else:
        metrics = summarize(experiment, record, progress.solved_epoch, final_state.final_metrics, final_state.weights)
        state, value, ending = _classify(experiment, metrics, trial.prune_reason)
        note = f"Trial {number} {ending}"
        moduli = [str(q) for q in metrics.moduli]
        own |= {
            "validation_accuracy": dict(zip(moduli, metrics.validation_accuracy, strict=True)),
            "test_accuracy": dict(zip(moduli, metrics.test_accuracy, strict=True)),
            METRICS_KEY: metrics.model_dump(mode="json", exclude_none=True),
        }
        if trial.prune_reason is not None:
            own["reason"] = trial.prune_reason
    artifacts = [Artifact(RECORD, record.to_npz(history.spectra, moduli=np.asarray(experiment.task_moduli)))]
    try:
        artifacts.insert(0, Artifact(LEARNING_CURVES, draw_curves(experiment, record, note, progress.solved_epoch)))
    except Exception as error:
        note = f"{note} Its learning curves could not be drawn: {reason(error)}."
    return TrialResult(state, value, note, own, artifacts, is_solved=progress.solved_epoch is not None)


def draw_curves(experiment: Experiment, record: Record, title: str, solved_epoch: int | None) -> bytes:
    """Draw the learning curves of a trial as a PNG. Any error of matplotlib may be raised, even by its import."""
    from miiii_search.analysis.figures.curves import learning_curves

    return learning_curves(experiment, record, title, solved_epoch)


def _classify(experiment: Experiment, metrics: Metrics, prune_reason: str | None) -> tuple[TrialState, float, str]:
    """Return the state and the value of a trial whose loss was finite, and the end of a sentence about it."""
    accuracy, solved = metrics.validation_accuracy_mean, metrics.epochs_to_solve
    if solved is not None:
        test = float(np.mean(np.asarray(metrics.test_accuracy)[np.asarray(experiment.scored)]))
        ending = (
            f"solved every task at epoch {solved:,} of {experiment.epochs:,} (test accuracy {format_accuracy(test)})."
        )
        return TrialState.COMPLETE, objective(experiment, accuracy, solved), ending
    if prune_reason is not None:
        return TrialState.PRUNED, accuracy, f"was pruned: {prune_reason}."
    reached = sum(
        a > experiment.accuracy_threshold
        for a, scored in zip(metrics.validation_accuracy, experiment.scored, strict=True)
        if scored
    )
    ending = (
        f"was not solved in {experiment.epochs:,} epochs: validation accuracy {format_accuracy(accuracy)}, "
        f"{reached} of {sum(experiment.scored)} tasks at {experiment.target_accuracy:g}."
    )
    return TrialState.COMPLETE, objective(experiment, accuracy, None), ending
