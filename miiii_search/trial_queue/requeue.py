"""Return trials to the queue, until all callers have a queue."""

from __future__ import annotations

from collections.abc import Collection

from miiii_search.storage.database import Database
from miiii_search.trial_queue.leases import Lease
from miiii_search.trial_queue.trial_queue import TrialQueue


def requeue_leases(database: Database, held: Collection[Lease]) -> list[int]:
    """Do what `TrialQueue.requeue` does."""
    return TrialQueue(database, 0).requeue(held)
