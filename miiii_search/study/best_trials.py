"""The order of trials from best to worst. `storage` has the same order in SQL.

Complete trials come first, then pruned ones, then failed ones. Within a state, the higher value comes first. Of equal
values, the trial with the lower number comes first. A trial without a value counts as 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from miiii_search.storage.records import FINISHED_STATES
from miiii_search.study.study import Study


def best_first_key(value: float | None, number: int, state: TrialState = TrialState.COMPLETE) -> tuple[int, float, int]:
    """Return the sort key of a finished trial: the smallest key is the best trial."""
    return FINISHED_STATES.index(state), -(value if value is not None else 0.0), number


def sort_best_first(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the finished trials, best first."""
    finished = [trial for trial in trials if trial.state in FINISHED_STATES]
    return sorted(finished, key=lambda trial: best_first_key(trial.value, trial.number, trial.state))


def best_trial(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """Return the best complete trial, or None if no trial is complete."""
    return next(iter(sort_best_first(trial for trial in trials if trial.state == TrialState.COMPLETE)), None)


def read_best_trials(study: Study, n: int, *, complete: bool = False) -> list[FrozenTrial]:
    """Read the `n` best finished trials, and no others.

    Args:
        study: The study.
        n: Maximum number of trials.
        complete: Whether to read complete trials only.

    Raises:
        StudyDeletedError: The study was deleted.
    """
    ids = study.store.read_finished_ids(n, complete=complete)
    found = study.read_trials(ids) if ids else {}
    return [found[trial_id] for trial_id in ids if trial_id in found]


def read_best(study: Study) -> FrozenTrial | None:
    """Read the best complete trial, and no other trial; None if no trial is complete.

    Raises:
        StudyDeletedError: The study was deleted.
    """
    return next(iter(read_best_trials(study, 1, complete=True)), None)
