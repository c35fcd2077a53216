"""The order of trials from best to worst, in Python and in SQL.

Complete trials come first, then pruned ones, then failed ones. Within a state, the higher value comes first. Of equal
values, the trial with the lower number comes first. A trial without a value counts as 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.storage import schema
from miiii_search.study.study import Study

FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
"""States of finished trials, best first."""


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


def select_best_first(study_id: int, *columns: Any, complete: bool = False) -> sa.Select[Any]:
    """Return a query of a study's finished trials, best first.

    Args:
        study_id: The study.
        *columns: Columns of `schema.trials` to select.
        complete: Whether to select complete trials only.
    """
    trials, values, kinds = schema.trials, schema.trial_values, schema.ValueType
    states = FINISHED_STATES[:1] if complete else FINISHED_STATES
    # Optuna stores an infinite value as its kind, without a number.
    infinity = sa.case((values.c.value_type == kinds.INF_POS, 1), (values.c.value_type == kinds.INF_NEG, -1), else_=0)
    return (
        sa.select(*columns)
        .select_from(trials)
        .outerjoin(values, sa.and_(values.c.trial_id == trials.c.trial_id, values.c.objective == 0))
        .where(trials.c.study_id == study_id, trials.c.state.in_(states))
        .order_by(
            sa.case(*((trials.c.state == state, rank) for rank, state in enumerate(states))),
            infinity.desc(),
            sa.func.coalesce(values.c.value, 0.0).desc(),
            trials.c.number,
        )
    )


def read_best_trials(study: Study, n: int, *, complete: bool = False) -> list[FrozenTrial]:
    """Read the `n` best finished trials, and no others.

    Args:
        study: The study.
        n: Maximum number of trials.
        complete: Whether to read complete trials only.

    Raises:
        StudyDeletedError: The study was deleted.
    """
    query = select_best_first(study.study_id, schema.trials.c.trial_id, complete=complete).limit(n)
    with study.database.engine.connect() as connection:
        ids = list(connection.execute(query).scalars())
    found = study.read_trials(ids) if ids else {}
    return [found[trial_id] for trial_id in ids if trial_id in found]


def read_best(study: Study) -> FrozenTrial | None:
    """Read the best complete trial, and no other trial; None if no trial is complete.

    Raises:
        StudyDeletedError: The study was deleted.
    """
    return next(iter(read_best_trials(study, 1, complete=True)), None)
