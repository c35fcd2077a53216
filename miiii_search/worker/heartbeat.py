"""Keeps a worker's leases alive while its main thread trains or compiles."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

import sqlalchemy as sa

from miiii_search.metrics.prometheus import WorkerCounters
from miiii_search.storage.database import Database
from miiii_search.storage.retry import is_outage
from miiii_search.trial_queue import leases
from miiii_search.trial_queue.leases import Heartbeat, Lease

RENEW_SECONDS = 5.0
"""Leases are renewed at least this often, or four times a period, so that `status` is fresh."""

STALL_SECONDS = 900.0
"""A main thread that has been silent for so long hangs: its leases are left to expire. Compiling takes minutes."""


class HeartbeatThread:
    """A thread that renews the leases it was last told of.

    A context manager. Not a fence: that a lease is still held is made sure of where something is written.
    """

    def __init__(self, database: Database, seconds: float, counters: WorkerCounters | None = None) -> None:
        self._database = database
        self._seconds = seconds
        self._counters = counters or WorkerCounters()
        self._lock = threading.Lock()
        self._heartbeats: list[Heartbeat] = []
        self._lost: set[Lease] = set()
        self._told = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def update(self, heartbeats: Sequence[Heartbeat]) -> None:
        """What the main thread holds now; it also says that the main thread lives."""
        with self._lock:
            self._heartbeats, self._told = list(heartbeats), time.monotonic()

    @property
    def lost(self) -> set[Lease]:
        """Leases that turned out to be lost. One that its holder has just ended by itself may be among them."""
        with self._lock:
            return set(self._lost)

    def __enter__(self) -> HeartbeatThread:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(min(RENEW_SECONDS, self._seconds / 4)):
            with self._lock:
                heartbeats, silent = self._heartbeats, time.monotonic() - self._told
            if heartbeats and silent < STALL_SECONDS:
                self._renew(heartbeats)

    def _renew(self, heartbeats: Sequence[Heartbeat]) -> None:
        try:
            with self._database.transaction() as connection:
                held = leases.renew(connection, heartbeats, self._seconds)
        except sa.exc.DBAPIError as error:
            if not is_outage(error):
                raise
            # A lease outlasts several renewals, and the main thread meets the same database with its reports.
            return
        with self._lock:
            self._lost |= {beat.lease for beat in heartbeats} - held
        self._counters.wrote_at = time.monotonic()
