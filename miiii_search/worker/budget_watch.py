"""Ends a worker's training in time when the study's budget is used up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from miiii_search.errors import StorageUnavailableError
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.study import Study
from miiii_search.training.trainer_messages import ChunkTiming
from miiii_search.trial_queue.budget import BudgetReservation


class LongestChunk:
    """A callback for trainers that keeps the duration of the longest chunk, in seconds.

    Args:
        on_chunk: Called with the timing of every chunk.
    """

    def __init__(self, on_chunk: Callable[[ChunkTiming], None]) -> None:
        self._on_chunk = on_chunk
        self.seconds = 0.0

    def __call__(self, chunk: ChunkTiming) -> None:
        """Record one chunk. Called by the trainers' threads."""
        self.seconds = max(self.seconds, chunk.end - chunk.start)
        self._on_chunk(chunk)


class BudgetWatch:
    """One worker's part of the study's budget. For use by the worker's main thread.

    Args:
        study: The study.
        devices: Number of devices that the worker holds while it trains.
        longest_chunk: Duration of the longest chunk so far.
        retry: Retries for the database.
    """

    def __init__(self, study: Study, devices: int, longest_chunk: LongestChunk, retry: DatabaseRetry) -> None:
        self._study = study
        self._longest_chunk = longest_chunk
        self._retry = retry
        self._reservation = BudgetReservation(study.queue, study.spec.budget, devices)

    @property
    def may_claim(self) -> bool:
        """Whether the worker may claim trials."""
        return self._reservation.may_claim

    def refresh(self) -> None:
        """Apply the budget of the study's current specification, which may have been extended."""
        self._reservation.set_budget(self._study.spec.budget)

    def stop_reason(self, *, holds_devices: bool) -> str | None:
        """Return why training must end now, in words, or None. Ask the database from time to time.

        Args:
            holds_devices: Whether the worker trains, or is about to.
        """
        if self._reservation.needs_update(self._margin) and holds_devices:
            with contextlib.suppress(StorageUnavailableError):  # the reservation may be used meanwhile
                self._retry.attempt(lambda: self._reservation.update(self._margin))
        return self._reservation.stop_reason(self._margin)

    def release(self) -> None:
        """Return the reserved time that is not used, because nothing is trained for now.

        Raises:
            StorageUnavailableError: The database is unavailable.
            AccessRefusedError: The database has refused the login for the duration of a lease.
        """
        self._retry.attempt(self._reservation.release)

    def release_unless_spent(self) -> None:
        """Do the same when the worker stops. If the budget is used up, the last seconds are not returned.

        Raises:
            StorageUnavailableError: The database is unavailable.
            AccessRefusedError: The database has refused the login for the duration of a lease.
        """
        if self._reservation.stop_reason(self._margin) is None:
            self.release()

    @property
    def _margin(self) -> float:
        """Seconds before the end of the budget at which training ends. Chunks that have started are completed."""
        return 1.0 + 2.0 * self._longest_chunk.seconds
