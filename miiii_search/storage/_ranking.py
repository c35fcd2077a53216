"""The order of trials from best to worst, in SQL; `study.best_trials` describes it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from miiii_search.storage import schema
from miiii_search.storage.records import FINISHED_STATES, TrialRef
from miiii_search.storage.trial_attrs import REPLICATE_KEY


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


def read_finished_ids(
    connection: sa.Connection, study_id: int, n: int | None = None, *, complete: bool = False
) -> list[int]:
    """Return the ids of the finished trials, best first: all of them, or the first `n`."""
    query = select_best_first(study_id, schema.trials.c.trial_id, complete=complete)
    return list(connection.execute(query if n is None else query.limit(n)).scalars())


def read_best_first_replicates(connection: sa.Connection, study_id: int, n: int) -> list[TrialRef]:
    """Return the `n` best complete trials that are a first replicate, best first."""
    trials, attributes = schema.trials, schema.trial_system_attributes
    is_first_replicate = sa.and_(
        attributes.c.trial_id == trials.c.trial_id,
        attributes.c.key == REPLICATE_KEY,
        attributes.c.value_json == "0",
    )
    query = select_best_first(study_id, trials.c.trial_id, trials.c.number, complete=True)
    rows = connection.execute(query.join(attributes, is_first_replicate).limit(n))
    return [TrialRef(row.trial_id, row.number) for row in rows]
