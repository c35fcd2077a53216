"""Keeps a worker's leases alive while its main thread trains or compiles."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from miiii_search.metrics.prometheus import WorkerCounters
from miiii_search.storage.retry import is_outage
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.trial_queue import TrialQueue

RENEW_SECONDS = 5.0
"""Longest time between two renewals, in seconds, so that `status` is current. A quarter of a lease, if that is less."""

STALL_SECONDS = 900.0
"""Silence of the main thread, in seconds, after which it is considered to hang: its leases are left to expire.

Compilation takes minutes.
"""


class HeartbeatThread:
    """A thread that renews the leases of one worker. A context manager.

    Renewal does not prove that a lease is still held: every write checks that in its own transaction.

    Args:
        queue: The queue of the study.
        seconds: Duration of a lease, in seconds.
        counters: Counters of the worker's metrics.
    """

    def __init__(self, queue: TrialQueue, seconds: float, counters: WorkerCounters | None = None) -> None:
        self._queue = queue
        self._seconds = seconds
        self._counters = counters or WorkerCounters()
        self._lock = threading.Lock()
        self._heartbeats: list[Heartbeat] = []
        self._lost: set[Lease] = set()
        self._updated_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def update(self, heartbeats: Sequence[Heartbeat]) -> None:
        """Set the leases to renew, with their progress. A call also proves that the main thread is alive."""
        with self._lock:
            self._heartbeats, self._updated_at = list(heartbeats), time.monotonic()

    @property
    def lost(self) -> set[Lease]:
        """Leases that the database no longer holds for this worker.

        One that the worker has just ended itself may be among them.
        """
        with self._lock:
            return set(self._lost)

    def __enter__(self) -> HeartbeatThread:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(min(RENEW_SECONDS, self._seconds / 4)):
            with self._lock:
                heartbeats, silent = self._heartbeats, time.monotonic() - self._updated_at
            if heartbeats and silent < STALL_SECONDS:
                self._renew(heartbeats)

    def _renew(self, heartbeats: Sequence[Heartbeat]) -> None:
        try:
            held = self._queue.renew(heartbeats, self._seconds)
        except Exception as error:
            if not is_outage(error):
                raise
            # A lease outlasts several renewals. The main thread logs the outage when it reports.
            return
        with self._lock:
            self._lost |= {beat.lease for beat in heartbeats} - held
        self._counters.wrote_at = time.monotonic()
