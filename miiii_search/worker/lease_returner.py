"""Returns a worker's trials to the queue when it stops, even if the database is unavailable."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from miiii_search import failpoints
from miiii_search.errors import StorageUnavailableError
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.study import Study
from miiii_search.trial_queue.leases import Lease
from miiii_search.worker.unreturned_leases import UnreturnedLeases

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""Seconds between two attempts to return trials."""


class LeaseReturner:
    """Returns leases of one worker, and those that earlier workers of its machine could not return.

    Args:
        study: The study.
        retry: Retries for the database.
        folder: Folder of the machine's checkpoints, in which unreturned leases are recorded; None keeps no record.
        log_fields: Fields of every log record.
    """

    def __init__(self, study: Study, retry: DatabaseRetry, folder: Path | None, log_fields: Mapping[str, str]) -> None:
        self._queue = study.queue
        self._retry = retry
        self._unreturned = UnreturnedLeases(folder, study) if folder else None
        self._log_fields = log_fields

    def return_leftovers(self) -> None:
        """Return the trials of earlier workers of this machine that stopped while the database was unavailable."""
        if self._unreturned is not None and (numbers := self._unreturned.requeue()):
            logger.info(
                f"returned {_count_trials(numbers)} to the queue for a worker that stopped while the database was "
                f"unavailable: {_join(numbers)}",
                extra=self._log_fields,
            )

    def requeue(self, held: Collection[Lease], deadline: float) -> None:
        """Return trials to the queue. Try again until the deadline: the database may be restarting.

        Args:
            held: The leases of the trials.
            deadline: End of the attempts, in seconds of `time.monotonic`.

        Raises:
            StorageUnavailableError: The database did not answer until the deadline.
            AccessRefusedError: The database has refused the login for the duration of a lease.
        """
        failpoints.reach("hand-back")
        while True:
            self._retry.skip_wait()  # the wait after the last failure may be longer than the time that is left
            try:
                numbers = self._retry.attempt(lambda: self._queue.requeue(held))
            except StorageUnavailableError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(min(RETRY_SECONDS, max(deadline - time.monotonic(), 0.0)))
            else:
                message = f"returned {_count_trials(numbers)} to the queue: {_join(numbers)}"
                logger.info(message, extra=self._log_fields)
                return

    def leave(self, held: Collection[Lease]) -> None:
        """Leave trials to the next worker of this machine, because the database does not answer."""
        if self._unreturned is not None:
            try:
                self._unreturned.save(held)
            except OSError as error:
                message = f"cannot record which trials were not returned to the queue: {error.strerror}"
                logger.warning(message, extra=self._log_fields)
            else:
                logger.warning(
                    f"the database does not answer: the next worker of this machine returns {_count_trials(held)} to "
                    f"the queue ({_join(lease.number for lease in held)}); without one, they return when their leases "
                    "expire",
                    extra=self._log_fields,
                )
                return
        message = f"{_count_trials(held)} will return to the queue when their leases expire"
        logger.warning(message, extra=self._log_fields)


def _count_trials(trials: Collection[object]) -> str:
    return f"{len(trials)} trial{'s' * (len(trials) != 1)}"


def _join(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
