"""What a study need not keep: the records and figures of trials that are not among the best."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.search import tables
from miiii_search.search.artifacts import TRIAL_PREFIX
from miiii_search.search.places import remove_from
from miiii_search.search.study import Study


@dataclass(frozen=True)
class Removed:
    """What was removed, or would be."""

    trials: int
    artifacts: int
    size: int
    """Bytes of those in the database."""


def tidy(study: Study, keep_records: int, *, dry_run: bool = False) -> Removed:
    """Removes the artifacts of all ended trials but the best so many; metrics, reports and notes stay.

    In one transaction, links and bytes together, so that nothing points to what is gone. Called twice, it does no more.
    """
    with study.database.transaction() as connection:
        tables.lock_study(connection, study.study_id)
        attributes, artifacts = tables.trial_system_attributes, tables.artifacts
        ids = _ended(connection, study.study_id)[keep_records:]
        of_rest = attributes.c.trial_id.in_(ids) & attributes.c.key.like(f"{TRIAL_PREFIX}%")
        links = connection.execute(sa.select(attributes.c.trial_id, attributes.c.key).where(of_rest)).all()
        names = [row.key.removeprefix(TRIAL_PREFIX) for row in links]
        files = artifacts.c.artifact_id.in_(names)
        size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(artifacts.c.data)), 0)).where(files)
        removed = Removed(len({row.trial_id for row in links}), len(links), int(connection.execute(size).scalar_one()))
        if not dry_run:
            connection.execute(sa.delete(attributes).where(of_rest))
            connection.execute(sa.delete(artifacts).where(files))
    if not dry_run:
        remove_from(study.place, names)
    return removed


def _ended(connection: sa.Connection, study_id: int) -> list[int]:
    """The ids of the ended trials, best first, as `status.ranked` has them."""
    trials, values = tables.trials, tables.trial_values
    order = sa.case((trials.c.state == TrialState.COMPLETE, 0), (trials.c.state == TrialState.PRUNED, 1), else_=2)
    query = (
        sa.select(trials.c.trial_id)
        .outerjoin(values, values.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study_id)
        .where(trials.c.state.in_([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]))
        .order_by(order, sa.func.coalesce(values.c.value, 0.0).desc(), trials.c.number)
    )
    return list(connection.execute(query).scalars())
