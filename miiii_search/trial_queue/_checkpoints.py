"""Checkpoints in the database, in SQL. Only the newest one of each running trial is kept."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from miiii_search.storage import schema
from miiii_search.storage.database import Database
from miiii_search.trial_queue import _leases
from miiii_search.trial_queue.leases import Heartbeat


def share(database: Database, heartbeat: Heartbeat, epoch: int, data: bytes, lease_seconds: float) -> bool:
    """Write a checkpoint to the database; see `TrialQueue.share_checkpoint`."""
    with database.transaction() as connection:
        if not _leases.renew(connection, [heartbeat], lease_seconds):
            return False
        row = {"trial_id": heartbeat.lease.trial_id, "epoch": epoch, "data": data}
        schema.upsert(connection, schema.checkpoints, [row], ("trial_id",))
    return True


def read_epochs(connection: sa.Connection, trial_ids: Collection[int]) -> dict[int, int]:
    """Return the epoch of the checkpoint by trial id, for the trials that have one."""
    table = schema.checkpoints
    query = sa.select(table.c.trial_id, table.c.epoch).where(table.c.trial_id.in_(trial_ids))
    return {row.trial_id: row.epoch for row in connection.execute(query)}


def load(connection: sa.Connection, trial_id: int) -> bytes | None:
    """Return the checkpoint of a trial, or None."""
    query = sa.select(schema.checkpoints.c.data).where(schema.checkpoints.c.trial_id == trial_id)
    return connection.execute(query).scalar_one_or_none()
