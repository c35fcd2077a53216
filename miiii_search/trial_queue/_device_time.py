"""The ledger of device time: what each worker has used or reserved, in SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.study_attrs import STARTED_KEY
from miiii_search.storage.usage import Usage, read_usage

TOLERANCE_SECONDS = 1e-3
"""Difference between two amounts of device time, in seconds, that is due to rounding."""


@dataclass(frozen=True)
class ReservedTime:
    """The answer to a reservation of device time.

    Attributes:
        usage: The part of its budget that the study had used before this reservation.
        seconds: Device time that the holder has reserved since its beginning, in seconds times devices.
    """

    usage: Usage
    seconds: float


def reserve(
    database: Database, study_id: int, holder: str, known: float, choose: Callable[[Usage], float]
) -> ReservedTime | None:
    """Reserve device time in one transaction; see `TrialQueue.reserve_device_time`."""
    with database.transaction() as connection:
        if not schema.lock_study(connection, study_id):
            return None
        if not study_attrs.read(connection, study_id, STARTED_KEY):
            study_attrs.write(connection, study_id, {STARTED_KEY: study_attrs.now(connection)})
        usage = read_usage(connection, study_id)
        seconds = choose(usage)
        if seconds <= 0:
            return ReservedTime(usage, known)
        in_ledger = _read(connection, holder)
        if in_ledger > known + TOLERANCE_SECONDS:  # the answer to an earlier call was lost
            return ReservedTime(usage, in_ledger)
        _write(connection, study_id, holder, in_ledger + seconds)
        return ReservedTime(usage, in_ledger + seconds)


def set_used(database: Database, study_id: int, holder: str, seconds: float) -> None:
    """Set the device time of a holder; see `TrialQueue.set_device_time`."""
    with database.transaction() as connection:
        if schema.lock_study(connection, study_id):
            _write(connection, study_id, holder, seconds)


def _read(connection: sa.Connection, holder: str) -> float:
    ledger = schema.device_time
    query = sa.select(ledger.c.seconds).where(ledger.c.holder == holder)
    return float(connection.execute(query).scalar_one_or_none() or 0.0)


def _write(connection: sa.Connection, study_id: int, holder: str, seconds: float) -> None:
    row = {"holder": holder, "study_id": study_id, "seconds": seconds}
    schema.upsert(connection, schema.device_time, [row], ("holder",))
