"""Returns a worker's trials to the queue when it stops, even if the database is unavailable."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from miiii_search.errors import StorageUnavailableError
from miiii_search.storage.database import Database
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.trial_queue.leases import Lease
from miiii_search.trial_queue.requeue import requeue_leases
from miiii_search.worker.unreturned_leases import UnreturnedLeases

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""Seconds between two attempts to return trials."""


class LeaseReturner:
    """Returns leases of one worker, and those that earlier workers of its machine could not return.

    Args:
        database: The database of the study.
        retry: Retries for the database.
        folder: Folder of the machine's checkpoints, in which unreturned leases are recorded; None keeps no record.
        log_fields: Fields of every log record.
    """

    def __init__(
        self, database: Database, retry: DatabaseRetry, folder: Path | None, log_fields: Mapping[str, str]
    ) -> None:
        self._database = database
        self._retry = retry
        self._unreturned = UnreturnedLeases(folder, database) if folder else None
        self._log_fields = log_fields

    def return_leftovers(self) -> None:
        """Return the trials of earlier workers of this machine that stopped while the database was unavailable."""
        if self._unreturned is not None and (numbers := self._unreturned.requeue()):
            message = f"handed back {_format_trials(numbers)} for a worker that stopped while the database was away"
            logger.info(message, extra=self._log_fields)

    def requeue(self, held: Collection[Lease], deadline: float) -> None:
        """Return trials to the queue. Try again until the deadline: the database may be restarting.

        Args:
            held: The leases of the trials.
            deadline: End of the attempts, in seconds of `time.monotonic`.

        Raises:
            StorageUnavailableError: The database did not answer until the deadline.
        """
        while True:
            self._retry.skip_wait()  # the wait after the last failure may be longer than the time that is left
            try:
                numbers = self._retry.attempt(lambda: requeue_leases(self._database, held))
            except StorageUnavailableError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(min(RETRY_SECONDS, max(deadline - time.monotonic(), 0.0)))
            else:
                logger.info(f"handed back {_format_trials(numbers)}", extra=self._log_fields)
                return

    def leave(self, held: Collection[Lease]) -> None:
        """Leave trials to the next worker of this machine, because the database does not answer."""
        if self._unreturned is not None:
            try:
                self._unreturned.save(held)
            except OSError as error:
                message = f"cannot record which trials were not handed back: {error.strerror}"
                logger.warning(message, extra=self._log_fields)
            else:
                logger.warning(
                    f"the database does not answer: {_format_trials([lease.number for lease in held])} will be handed "
                    "back by the next worker of this machine, or when their leases run out",
                    extra=self._log_fields,
                )
                return
        message = f"{len(held)} trials go back to the queue when their leases run out"
        logger.warning(message, extra=self._log_fields)


def _format_trials(numbers: Collection[int]) -> str:
    """Return the number of trials and a list of them, such as `2 trials: 3, 5`."""
    return f"{len(numbers)} trial{'s' * (len(numbers) != 1)}: {', '.join(map(str, numbers))}"
