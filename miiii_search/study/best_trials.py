"""The order of a study's trials, best first."""

from __future__ import annotations

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.storage import schema
from miiii_search.study.study import Study


def best_trial(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """Returns the COMPLETE trial of the highest objective, the first one of several."""
    return next(iter(sort_best_first([trial for trial in trials if trial.state == TrialState.COMPLETE])), None)


def sort_best_first(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Finished trials, best first: complete ones by their objective, then pruned ones by theirs, then failed ones."""
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.FAIL: 2}
    ended = [trial for trial in trials if trial.state in order]
    return sorted(ended, key=lambda t: (order[t.state], -(t.value if t.value is not None else 0.0), t.number))


def read_best_trials(study: Study, n: int, *, complete: bool = False) -> list[FrozenTrial]:
    """Reads the first `n` trials of `sort_best_first`, or of the COMPLETE ones alone; no others.

    Raises `MiiiiSearchError` if somebody deleted the study.
    """
    trials, values = schema.trials, schema.trial_values
    states = [TrialState.COMPLETE] if complete else [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    kinds = schema.ValueType
    infinity = sa.case((values.c.value_type == kinds.INF_POS, 1), (values.c.value_type == kinds.INF_NEG, -1), else_=0)
    query = (
        sa.select(trials.c.trial_id)
        .outerjoin(values, sa.and_(values.c.trial_id == trials.c.trial_id, values.c.objective == 0))
        .where(trials.c.study_id == study.study_id, trials.c.state.in_(states))
        .order_by(
            sa.case(*((trials.c.state == state, place) for place, state in enumerate(states))),
            infinity.desc(),
            sa.func.coalesce(values.c.value, 0.0).desc(),
            trials.c.number,
        )
        .limit(n)
    )
    with study.database.engine.connect() as connection:
        ids = list(connection.execute(query).scalars())
    found = study.read_trials(ids) if ids else {}
    return [found[trial_id] for trial_id in ids if trial_id in found]


def read_best(study: Study) -> FrozenTrial | None:
    """Reads `best_trial` of the study as it is now, and no other trial."""
    return next(iter(read_best_trials(study, 1, complete=True)), None)
