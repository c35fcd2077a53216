"""The part of `TrialQueue` that reads."""

from __future__ import annotations

from collections.abc import Collection

from miiii_search.storage.abandoned import AbandonedTrial, find_abandoned
from miiii_search.storage.database import Database
from miiii_search.storage.trial_counts import count_at_least_as_good
from miiii_search.storage.usage import Usage, read_usage
from miiii_search.trial_queue import _checkpoints, _leases


class QueueReading:
    """The methods of `TrialQueue` that change nothing. A second call reads again.

    Args:
        database: The database.
        study_id: Optuna's id of the study.
    """

    def __init__(self, database: Database, study_id: int) -> None:
        self._database = database
        self._study_id = study_id

    def count_at_least_as_good(self, value: float) -> int:
        """Count the COMPLETE trials whose value is finite and at least `value`.

        It needs no lease, and a second call counts again. The count is 0 after the study was deleted.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.engine.connect() as connection:
            return count_at_least_as_good(connection, self._study_id, value)

    def read_usage(self) -> Usage:
        """Return the part of its budget that the study has used so far.

        It needs no lease, and a second call reads again. Nothing is used after the study was deleted.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.engine.connect() as connection:
            return read_usage(connection, self._study_id)

    def find_abandoned(self) -> list[AbandonedTrial]:
        """Return the trials that a coordinator, if one ran, would have returned to the queue by now.

        These are the trials of `requeue_overdue` whose leases ran out at least `ABANDONED_AFTER_SECONDS` ago, and
        running trials without a lease. It needs no lease, and a second call reads again. There are none after the
        study was deleted.

        Returns:
            The trials, ordered by number.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.engine.connect() as connection:
            return find_abandoned(connection, self._study_id)

    def find_finished(self, trial_ids: Collection[int]) -> set[int]:
        """Return those of the trials that have ended or no longer exist.

        It needs no lease, and a second call reads again. After the study was deleted, it returns all of them. Without
        trials, it does not access the database.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        return _leases.find_finished(self._database, trial_ids)

    def checkpoint_epochs(self, trial_ids: Collection[int]) -> dict[int, int]:
        """Return the epoch of the checkpoint in the database by trial id, for the trials that have one.

        It needs no lease, and a second call reads again. The checkpoints are gone once a trial has ended, and after
        the study was deleted.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.engine.connect() as connection:
            return _checkpoints.read_epochs(connection, trial_ids)

    def load_checkpoint(self, trial_id: int) -> bytes | None:
        """Return the checkpoint of a trial in the database, or None if it has none.

        It needs no lease, and a second call reads again. The checkpoint is gone once the trial has ended, and after
        the study was deleted.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.engine.connect() as connection:
            return _checkpoints.load(connection, trial_id)
