"""The queue of a study's trials: which worker trains which trial, and what it writes about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution

from miiii_search.storage import abandoned
from miiii_search.storage.database import Database
from miiii_search.storage.records import NewTrial
from miiii_search.storage.usage import Usage
from miiii_search.trial_queue import _checkpoints, _claims, _device_time, _leases, _requeue, _results
from miiii_search.trial_queue._device_time import ReservedTime
from miiii_search.trial_queue._queue_reading import QueueReading
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult


class TrialQueue(QueueReading):
    """The queue of one study. Its methods may be called by several threads.

    A trial is claimed and leased in one transaction, so no trial is ever claimed without a lease. Every transaction
    that writes about a trial first renews its lease by its token, which locks the row of the lease. A worker that lost
    its lease therefore cannot overwrite anything.

    Each call that grants or renews a lease gets its duration, because the study's specification may change.

    During an outage, every method raises the driver's `sqlalchemy.exc.DBAPIError`, for which `storage.retry.is_outage`
    is true. A transaction for writing may have taken effect all the same, so callers repeat the call.
    `storage.retry.DatabaseRetry` does that, and raises `StorageUnavailableError` instead.

    Args:
        database: The database.
        study_id: Optuna's id of the study.
    """

    def claim(
        self,
        worker: str,
        lease_seconds: float,
        *,
        n: int = 1,
        first_ids: Sequence[int] = (),
        preferred_shapes: Collection[str] = (),
        excluded_shapes: Collection[str] = (),
    ) -> list[Lease]:
        """Claim up to `n` WAITING trials: set them RUNNING and lease them, in one transaction.

        Called twice, it claims further trials. Two workers never get the same trial. If the answer is lost with the
        connection, the trials that it claimed go back to the queue when their leases run out.

        Args:
            worker: Name of the worker. Its first 256 characters are stored.
            lease_seconds: Duration of the leases, in seconds.
            n: Maximum number of trials.
            first_ids: Ids of trials that come before all others, in this order.
            preferred_shapes: Shapes (values of `SHAPE_KEY`) whose trials come before the remaining ones.
            excluded_shapes: Shapes whose trials are not claimed.

        Returns:
            The leases; fewer than `n` if the queue holds fewer trials. There are none if the study is paused, or after
            it was deleted.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        return _claims.claim(
            self._database,
            self._study_id,
            worker,
            lease_seconds,
            n=n,
            first_ids=first_ids,
            preferred_shapes=preferred_shapes,
            excluded_shapes=excluded_shapes,
        )

    def claim_new_trial(
        self,
        trial: NewTrial,
        space: Mapping[str, BaseDistribution],
        worker: str,
        lease_seconds: float,
        *,
        n_trials: int,
        attributes: Mapping[str, Any],
    ) -> Lease | None:
        """Add a trial that is RUNNING and leased from its beginning, in one transaction.

        Called twice, it adds nothing the second time, because the number of trials has changed. If the answer is lost
        with the connection, the trial goes to the queue when its lease runs out.

        Args:
            trial: The trial.
            space: Distribution of each of its hyperparameters.
            worker: Name of the worker. Its first 256 characters are stored.
            lease_seconds: Duration of the lease, in seconds.
            n_trials: Number of trials that the study must have. Otherwise another worker has added one meanwhile.
            attributes: System attributes that the study must have, by key; None stands for a missing attribute.

        Returns:
            The lease. It is None if the study is paused, has changed or was deleted. Nothing was written then.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        return _claims.claim_new_trial(
            self._database,
            self._study_id,
            trial,
            space,
            worker,
            lease_seconds,
            n_trials=n_trials,
            attributes=attributes,
        )

    def renew(self, heartbeats: Iterable[Heartbeat], lease_seconds: float) -> set[Lease]:
        """Renew leases and store the progress of their trials.

        Called twice, it renews the leases again. A lost lease is not renewed and not returned. A lease that has run out
        is renewed like any other, as long as no coordinator has returned its trial to the queue. A lease is lost as
        well if its trial was ended by another program, such as the dashboard, or if the study was deleted.

        Args:
            heartbeats: At most one heartbeat per lease.
            lease_seconds: Seconds until the leases run out, from now.

        Returns:
            The leases that are still held.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.transaction() as connection:
            return _leases.renew(connection, heartbeats, lease_seconds)

    def report(
        self, heartbeats: Sequence[Heartbeat], reports: Mapping[Lease, Mapping[int, float]], lease_seconds: float
    ) -> set[Lease]:
        """Renew leases and write the reports of those that are still held, in one transaction.

        Called twice, it overwrites what it wrote. The reports of a lost lease are dropped, without an error. All leases
        are lost after the study was deleted.

        Args:
            heartbeats: One heartbeat per lease.
            reports: For each lease, the validation accuracy by epoch.
            lease_seconds: Seconds until the leases run out, from now.

        Returns:
            The leases that are still held.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        return _results.report(self._database, heartbeats, reports, lease_seconds)

    def finish(self, heartbeat: Heartbeat, result: TrialResult, solved_budget: int | None = None) -> FinishStatus:
        """End a trial: write its result with all artifacts, and its final state, in one transaction.

        Called twice, because the first answer was lost, it writes nothing more. It returns WRITTEN again, or LEASE_LOST
        if the trial went back to the queue. A worker that has lost the lease writes nothing; nor does anyone after the
        study was deleted.

        Args:
            heartbeat: The lease and the final progress of the trial.
            result: The result to be written.
            solved_budget: Maximum number of solved trials of the study; None for no limit.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable, and the trial may have ended already. Or the
                database refuses the result, and nothing was written.
            ValueError: An artifact is larger than `MAX_ARTIFACT_BYTES`. Nothing was written.
        """
        return _results.finish(self._database, self._study_id, heartbeat, result, solved_budget)

    def requeue(self, held: Collection[Lease]) -> list[int]:
        """Return trials to the queue and end their leases. The trials keep their numbers, parameters and reports.

        Called twice, it does nothing the second time. Trials whose lease was lost are left alone; so is everything
        after the study was deleted.

        Returns:
            The numbers of the trials that went back to the queue, sorted. Trials whose lease was lost, and trials that
            have ended, are not among them.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The trials may have gone back to the queue already.
                If not, they do when their leases run out.
        """
        return _requeue.requeue_leases(self._database, held)

    def requeue_for_retry(self, heartbeat: Heartbeat, retries: int, note: str) -> bool:
        """Return a trial whose run failed to the queue, so that it is trained again.

        Called twice, it returns False the second time, because the first call ended the lease. A worker that has lost
        the lease writes nothing; nor does anyone after the study was deleted.

        Args:
            heartbeat: The lease and the progress of the trial.
            retries: How often the trial's run has failed, this time included.
            note: One sentence on the failure.

        Returns:
            Whether the trial went back to the queue; False if the lease was lost.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The trial may have gone back to the queue already.
        """
        return _results.requeue_for_retry(self._database, heartbeat, retries, note)

    def requeue_overdue(self) -> list[int]:
        """Return RUNNING trials to the queue whose lease has run out or does not exist.

        The trials keep their numbers, parameters and reports. Called twice, or by several coordinators at once, it
        returns each trial once. The workers that held the leases have lost them and can no longer write. After the
        study was deleted, it does nothing.

        Returns:
            The numbers of the trials that went back to the queue, sorted.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        return _requeue.requeue_overdue(self._database, self._study_id)

    def share_checkpoint(self, heartbeat: Heartbeat, epoch: int, data: bytes, lease_seconds: float) -> bool:
        """Write a checkpoint to the database, in place of the trial's previous one there.

        Called twice, it writes the same again. A worker that has lost the lease writes nothing; nor does anyone after
        the study was deleted.

        Args:
            heartbeat: Progress with which the trial's lease is renewed in the same transaction.
            epoch: Epoch of the checkpoint.
            data: The checkpoint.
            lease_seconds: Seconds until the lease runs out, from now.

        Returns:
            Whether the checkpoint was written; False if the lease was lost.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The checkpoint may have been written already.
        """
        return _checkpoints.share(self._database, heartbeat, epoch, data, lease_seconds)

    def reserve_device_time(self, holder: str, known: float, choose: Callable[[Usage], float]) -> ReservedTime | None:
        """Reserve device time of the study's budget, under the study's lock. It needs no lease.

        The first call starts the study's wall time. Called twice because the first answer was lost, it returns what
        the first call has reserved, and reserves nothing more.

        Args:
            holder: Random text that identifies who reserves.
            known: Device time that the holder knows to have reserved, in seconds times devices.
            choose: Returns how much to reserve in addition, for what all workers have used and reserved; 0 for none.

        Returns:
            What was used before, and what the holder has reserved; None after the study was deleted.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The time may have been reserved already.
        """
        return _device_time.reserve(self._database, self._study_id, holder, known, choose)

    def set_device_time(self, holder: str, seconds: float) -> None:
        """Set what a holder has used of the budget, and give back the rest of its reservation. It needs no lease.

        Called twice, it writes the same again. After the study was deleted, it does nothing.

        Args:
            holder: The holder of a reservation; see `reserve_device_time`.
            seconds: Device time that it has used since its beginning, in seconds times devices.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The reservation counts as used until a later call.
        """
        _device_time.set_used(self._database, self._study_id, holder, seconds)


def find_studies_with_overdue(database: Database) -> list[tuple[int, str, float]]:
    """Return the studies of this package with RUNNING trials whose lease has run out or does not exist.

    A second call reads again.

    Returns:
        (study id, study name, duration of the study's leases in seconds), ordered by id.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    with database.engine.connect() as connection:
        return abandoned.find_studies_with_overdue(connection)
