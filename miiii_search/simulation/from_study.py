"""Reads the learning curves of a study's trials."""

from __future__ import annotations

from collections.abc import Callable

from optuna.trial import TrialState

from miiii_search.runs.trial_runs import read_trial_run
from miiii_search.simulation.curves import Curve, CurveSet, make_curve
from miiii_search.storage.trial_attrs import REPLICATE_KEY
from miiii_search.study.study import Study


def curves_from_study(
    study: Study, on_trial: Callable[[int], None] = lambda number: None
) -> tuple[CurveSet, list[str]]:
    """Return the curves of all finished trials of a study.

    Args:
        study: The study.
        on_trial: Called with the number of each trial after it was read.

    Returns:
        The curves, and a message for each trial that has no readable record.
    """
    curves: list[Curve] = []
    problems: list[str] = []
    for trial in study.trials():
        if not trial.state.is_finished():
            continue
        run, messages = read_trial_run(study, trial)
        problems += messages
        on_trial(trial.number)
        if run.record is None or not len(run.record):
            problems += [] if messages else [f"trial {trial.number} has no record"]
            continue
        curves.append(
            make_curve(
                trial.number,
                trial.params,
                int(trial.system_attrs.get(REPLICATE_KEY, 0)),
                run.experiment,
                run.record,
                failed_epoch=trial.user_attrs.get("failed_epoch"),
                pruned=trial.state == TrialState.PRUNED,
            )
        )
    return CurveSet(study.name, study.spec, tuple(curves)), problems
