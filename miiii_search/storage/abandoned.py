"""Find trials whose workers are gone. Nothing here changes the database."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.schema import leases, trials

ABANDONED_AFTER_SECONDS = 10.0
"""Time from the end of a lease until the trial counts as abandoned.

A coordinator that runs returns it to the queue sooner, because it looks for such trials every two seconds.
"""


@dataclass(frozen=True)
class AbandonedTrial:
    """A RUNNING trial whose worker is gone and that no coordinator has returned to the queue.

    Attributes:
        study_id: Optuna's id of the study.
        number: Number of the trial within its study.
        worker: Name of the worker, or None if the trial has no lease because another program started it.
        silent_seconds: Seconds since the lease was last renewed; 0 without a lease.
    """

    study_id: int
    number: int
    worker: str | None
    silent_seconds: float


def find_abandoned(connection: sa.Connection, study_id: int | None = None) -> list[AbandonedTrial]:
    """Return the trials that a coordinator, if one ran, would have returned to the queue by now.

    These are running trials without a lease, and those whose lease ran out at least `ABANDONED_AFTER_SECONDS` ago.

    Args:
        connection: A connection to the database.
        study_id: Optuna's id of the study, or None for all studies.

    Returns:
        The trials, ordered by study and number.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    clock = schema.now(connection)
    period = leases.c.expires_at - leases.c.renewed_at
    is_overdue = sa.and_(
        leases.c.expires_at + ABANDONED_AFTER_SECONDS < clock,
        schema.server_start_time(connection) + period + ABANDONED_AFTER_SECONDS < clock,
    )
    query = (
        sa.select(trials.c.study_id, trials.c.number, leases.c.worker, (clock - leases.c.renewed_at).label("silent"))
        .outerjoin(leases, leases.c.trial_id == trials.c.trial_id)
        .where(trials.c.state == TrialState.RUNNING, sa.or_(leases.c.trial_id.is_(None), is_overdue))
        .order_by(trials.c.study_id, trials.c.number)
    )
    if study_id is not None:
        query = query.where(trials.c.study_id == study_id)
    return [
        AbandonedTrial(row.study_id, row.number, row.worker, row.silent or 0.0) for row in connection.execute(query)
    ]


def find_studies_with_overdue(connection: sa.Connection) -> list[tuple[int, str, float]]:
    """Return the studies of this package with RUNNING trials whose lease has run out or does not exist.

    Returns:
        (study id, study name, duration of the study's leases in seconds), ordered by id.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    is_held = sa.exists().where(leases.c.trial_id == trials.c.trial_id, leases.c.expires_at >= schema.now(connection))
    specs, studies = schema.study_system_attributes, schema.studies
    query = (
        sa.select(studies.c.study_id, studies.c.study_name, specs.c.value_json)
        .join(specs, sa.and_(specs.c.study_id == studies.c.study_id, specs.c.key == study_attrs.SPEC_KEY))
        .where(
            sa.exists().where(trials.c.study_id == studies.c.study_id, trials.c.state == TrialState.RUNNING, ~is_held)
        )
        .order_by(studies.c.study_id)
    )
    return [(row[0], row[1], float(json.loads(row[2]).get("lease_seconds", 60.0))) for row in connection.execute(query)]
