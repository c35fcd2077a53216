"""The part of its budget that a study has used, read from the database."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.study_attrs import PAUSED_KEY, STARTED_KEY
from miiii_search.storage.trial_counts import count_solved


@dataclass(frozen=True)
class Usage:
    """The part of its budget that a study has used.

    Attributes:
        solved: Number of COMPLETE trials whose run was solved.
        device_seconds: Seconds of device time that workers have used or reserved.
        wall_seconds: Seconds since the first claim, without pauses; 0 before the first claim.
    """

    solved: int
    device_seconds: float
    wall_seconds: float


def read_usage(connection: sa.Connection, study_id: int) -> Usage:
    """Return the part of its budget that the study has used so far."""
    ledger = schema.device_time
    device_seconds = connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(ledger.c.seconds), 0.0)).where(ledger.c.study_id == study_id)
    ).scalar_one()
    times = study_attrs.read(connection, study_id, STARTED_KEY, PAUSED_KEY)
    wall_seconds = 0.0
    if STARTED_KEY in times:
        now = times[PAUSED_KEY] if PAUSED_KEY in times else study_attrs.now(connection)
        wall_seconds = max(now - times[STARTED_KEY], 0.0)
    return Usage(count_solved(connection, study_id), float(device_seconds), wall_seconds)
