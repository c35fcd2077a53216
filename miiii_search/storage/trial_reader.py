"""Reading the trials of one study."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.search_space import Point
from miiii_search.errors import StudyDeletedError
from miiii_search.storage import _finished, _points, _ranking, _running, _sampling, schema
from miiii_search.storage.database import Database
from miiii_search.storage.hints import hint
from miiii_search.storage.records import (
    FinishedTrial,
    KnownTrials,
    PeerReports,
    PrunedTrial,
    RunningTrial,
    StudyIdentity,
    TrialRef,
)
from miiii_search.storage.trial_counts import count_trials


class TrialReader:
    """Reads the trials of one study. It changes nothing, so a method that is called twice reads again.

    Args:
        database: The database.
        identity: The study.
        connection: The connection to read from; None opens one for each call.
    """

    def __init__(self, database: Database, identity: StudyIdentity, connection: sa.Connection | None = None) -> None:
        self._database = database
        self._connection = connection
        self.identity = identity
        """The study."""

    @contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        if self._connection is not None:
            yield self._connection
        else:
            with self._database.engine.connect() as connection:
                yield connection

    def deleted_error(self) -> StudyDeletedError:
        """Return the exception that says that the study was deleted. Does not access the database."""
        shown = hint("list", database=self._database)
        return StudyDeletedError(f"study `{self.identity.name}` was deleted; {shown} shows the studies that exist")

    def read_all_trials(self) -> list[FrozenTrial]:
        """Read all trials, ordered by number. Called twice, it reads again.

        Raises:
            StudyDeletedError: The study was deleted.
            optuna.exceptions.StorageInternalError: The database is unavailable.
        """
        try:
            return self._database.optuna.get_all_trials(self.identity.study_id, deepcopy=False)
        except KeyError:
            raise self.deleted_error() from None

    def read_trials(self, trial_ids: Collection[int]) -> dict[int, FrozenTrial]:
        """Read trials by their ids. The number of SQL statements does not depend on the number of trials.

        Called twice, it reads again.

        Args:
            trial_ids: Ids of the trials. Ids that do not exist are ignored.

        Returns:
            The trials by id.

        Raises:
            StudyDeletedError: The study was deleted.
            optuna.exceptions.StorageInternalError: The database is unavailable.
        """
        storage = self._database.optuna
        try:
            # The last argument is for caches that hold all trials up to an id. No id is larger than this one.
            found = storage._get_trials(self.identity.study_id, None, set(trial_ids), 2**31 - 1)
        except KeyError:
            raise self.deleted_error() from None
        return {trial._trial_id: trial for trial in found}

    def find_trial(self, number: int) -> int | None:
        """Return the id of the trial with a number, or None. Called twice, it reads again.

        After the study was deleted, it returns None.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        trials = schema.trials
        query = sa.select(trials.c.trial_id).where(
            trials.c.study_id == self.identity.study_id, trials.c.number == number
        )
        with self._connect() as connection:
            return next(iter(connection.execute(query).scalars()), None)

    def count_trials(self) -> dict[TrialState, int]:
        """Count the trials in each state. Every state is a key. Called twice, it reads again.

        After the study was deleted, all counts are 0.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return count_trials(connection, self.identity.study_id)

    def has_trials(self) -> bool:
        """Return whether the study has a trial. Called twice, it reads again.

        After the study was deleted, it has none.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        query = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == self.identity.study_id).limit(1)
        with self._connect() as connection:
            return connection.execute(query).first() is not None

    def read_finished_ids(self, n: int | None = None, *, complete: bool = False) -> list[int]:
        """Return the ids of the finished trials, best first; see `study.best_trials`. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Args:
            n: Maximum number of ids; None for all.
            complete: Whether to return complete trials only.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _ranking.read_finished_ids(connection, self.identity.study_id, n, complete=complete)

    def read_numbers(self, trial_ids: Collection[int]) -> list[int]:
        """Return the numbers of trials, sorted. Ids that do not exist are ignored. Called twice, it reads again.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        query = sa.select(schema.trials.c.number).where(schema.trials.c.trial_id.in_(trial_ids))
        with self._connect() as connection:
            return sorted(connection.execute(query).scalars())

    def read_best_first_replicates(self, n: int) -> list[TrialRef]:
        """Return the `n` best complete trials that are a first replicate, best first. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _ranking.read_best_first_replicates(connection, self.identity.study_id, n)

    def read_points(self) -> dict[int, tuple[Point, int]]:
        """Return the point and the replicate of every trial, by trial id. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _points.read_points(connection, self.identity.study_id)

    def read_points_by_id(self, trial_ids: Collection[int]) -> dict[int, Point]:
        """Return the points of trials, by trial id. A trial without parameters is missing.

        Called twice, it reads again.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _points.read_points_by_id(connection, trial_ids)

    def read_finished_trials(self, known: Mapping[int, FinishedTrial]) -> dict[int, FinishedTrial]:
        """Read the finished trials. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Args:
            known: Finished trials by id that were read before. They do not change, so they are not read again.

        Returns:
            All finished trials by id.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _finished.read_finished_trials(connection, self.identity.study_id, known)

    def read_pruned_trials(self, last: int | None = None) -> list[PrunedTrial]:
        """Read the pruned trials in the order in which they were pruned. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Args:
            last: Number of trials to read, the last ones; None reads all.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _finished.read_pruned_trials(connection, self.identity.study_id, last)

    def count_parameter_values(self) -> dict[str, int]:
        """Return the number of different values of each parameter among the finished trials.

        A trial without the parameter counts as one more value. Called twice, it reads again. After the study was
        deleted, it returns nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _finished.count_parameter_values(connection, self.identity.study_id)

    def mean_epochs_trained(self) -> float | None:
        """Return the mean number of epochs that trials were trained for; None if no trial has recorded it.

        Called twice, it reads again. After the study was deleted, it returns None.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _finished.mean_epochs_trained(connection, self.identity.study_id)

    def read_running_trials(self) -> tuple[list[RunningTrial], bool]:
        """Read the running trials that are leased. Called twice, it reads again.

        Returns:
            The trials ordered by number, and whether any of their leases is still valid.

        Raises:
            StudyDeletedError: The study was deleted while its trials were read.
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _running.read_running_trials(connection, self.identity.study_id, self.read_trials)

    def read_known_trials(self, max_waiting: int, excluded_shapes: Collection[str] = ()) -> KnownTrials:
        """Read the trials from which a sampler chooses, and whose results it knows. Called twice, it reads again.

        After the study was deleted, it returns nothing. A trial that Optuna's `enqueue_trial` made has neither shape
        nor point, and is left out.

        Args:
            max_waiting: Maximum number of waiting trials, the first of the queue.
            excluded_shapes: Shapes whose waiting trials are left out.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _sampling.read_known_trials(connection, self.identity.study_id, max_waiting, excluded_shapes)

    def read_peer_reports(self, epochs: Collection[int], known: Collection[int] = ()) -> PeerReports:
        """Read the reports that a pruner compares. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Args:
            epochs: Epochs at which all reports are read.
            known: Ids of finished trials whose last report is not read again.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _sampling.read_peer_reports(connection, self.identity.study_id, epochs, known)
