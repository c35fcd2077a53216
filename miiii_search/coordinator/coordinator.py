"""The coordinator: it returns overdue trials to the queue, queues further seeds, and decides that a study is done."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from optuna.trial import TrialState

from miiii_search.coordinator.dashboard_note import StudyNote
from miiii_search.coordinator.other_studies import OtherStudies
from miiii_search.errors import StorageUnavailableError, StudyNotFoundError
from miiii_search.storage.database import Database
from miiii_search.storage.hints import hint
from miiii_search.storage.records import StudyCounts
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.open import open_study
from miiii_search.study.promote import queue_further_seeds
from miiii_search.study.state import A_WORKER, StudyState, describe_pause, describe_waiting, missing_process
from miiii_search.study.stored_spec import upgrade_stored_spec
from miiii_search.study.study import Study
from miiii_search.trial_queue.budget import read_exhausted_limit

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""Seconds between two polls of the database."""

NO_WORKER_SECONDS = 60.0
"""Seconds without a worker after which the coordinator logs that one is missing. To start one takes a while."""


def supervise(
    study: Study,
    stop: threading.Event,
    on_poll: Callable[[], None] = lambda: None,
    on_counts: Callable[[StudyCounts], None] = lambda counts: None,
) -> bool:
    """Supervise a study until it is done or `stop` is set.

    Several coordinators may supervise the same study at once. While the database is unavailable, this waits.
    Afterwards, it grants workers the duration of a lease to renew their leases before it requeues overdue trials.

    Args:
        study: The study.
        stop: Ends the supervision, from any thread.
        on_poll: Called at each poll.
        on_counts: Called with what each successful poll has read.

    Returns:
        Whether the study is done.

    Raises:
        AccessRefusedError: The database has refused the login for the duration of a lease.
        MiiiiSearchError: The study was deleted.
    """
    supervisor, others = _Supervisor(study, on_poll, on_counts), OtherStudies(study.database, study.name)
    retry, seconds = DatabaseRetry(study.spec.lease_seconds), min(POLL_SECONDS, study.spec.lease_seconds / 4)

    def poll() -> bool:
        supervisor.upgrade_spec()
        supervisor.requeue_overdue()
        others.requeue_overdue()
        return supervisor.poll()

    while not stop.is_set():
        try:
            if retry.attempt(poll):
                return True
        except StorageUnavailableError:
            supervisor.note_outage()
            others.note_outage()
        stop.wait(seconds)
    return False


class _Supervisor:
    """Polls one study, and logs what changes."""

    def __init__(self, study: Study, on_poll: Callable[[], None], on_counts: Callable[[StudyCounts], None]) -> None:
        self._study = study
        self._on_poll = on_poll
        self._on_counts = on_counts
        self._note = StudyNote(study)
        self._log_fields = {"study": study.name}
        self._is_spec_current = False
        self._paused = False
        self._mismatch: str | None = None
        self._requeue_from = 0.0
        """Time from which overdue trials are requeued, in seconds of `time.monotonic`."""
        self._trained_at: float | None = time.monotonic()
        """Time at which a worker was last seen; None once it was logged that none trains."""

    def upgrade_spec(self) -> None:
        """Rewrite a spec that an older version stored, at the first poll that reaches the database."""
        if not self._is_spec_current and upgrade_stored_spec(self._study):
            logger.info(
                f"study `{self._study.name}` was created by an older version; its spec is in today's format now",
                extra=self._log_fields,
            )
        self._is_spec_current = True

    def note_outage(self) -> None:
        """Grant workers, which could not reach the database either, the duration of a lease to renew their leases."""
        self._requeue_from = time.monotonic() + self._study.spec.lease_seconds

    def requeue_overdue(self) -> None:
        """Return trials whose worker was silent for the duration of a lease to the queue."""
        if time.monotonic() < self._requeue_from:
            return
        seconds = self._study.spec.lease_seconds
        for number in self._study.queue.requeue_overdue():
            logger.warning(
                f"trial {number} went back to the queue: its worker was silent for {seconds:g} s",
                extra={**self._log_fields, "trial": number},
            )

    def poll(self) -> bool:
        """Queue further seeds if they are due, and update the note. Return whether the study is done."""
        study = self._study
        if (message := queue_further_seeds(study)) is not None:
            logger.info(message, extra=self._log_fields)
        self._on_poll()
        counts = study.read_counts()
        self._on_counts(counts)
        done = study.is_done(counts.counts)
        self._log_changes()
        self._note.refresh(done)
        self._log_missing_worker(counts, done)
        return done

    def _log_changes(self) -> None:
        study = self._study
        if study.paused != self._paused:
            self._paused = study.paused
            logger.info(describe_pause(study.name, study.paused), extra=self._log_fields)
        if study.version_mismatch != self._mismatch:
            self._mismatch = study.version_mismatch
            if self._mismatch:
                logger.warning(self._mismatch, extra=self._log_fields)
            else:
                logger.info(f"study `{study.name}` can be trained by this version", extra=self._log_fields)

    def _log_missing_worker(self, counts: StudyCounts, done: bool) -> None:
        study = self._study
        missing = missing_process(counts.counts, is_selecting=study.awaits_selection, is_abandoned=False)
        if done or self._paused or counts.counts[TrialState.RUNNING] or missing != A_WORKER:
            self._trained_at = time.monotonic()
        elif self._trained_at is not None and time.monotonic() - self._trained_at >= NO_WORKER_SECONDS:
            self._trained_at = None
            command = hint("work", "--study", study.name, database=study.database)
            message = describe_waiting(study.name, StudyState.WAITING_FOR_WORKER, command)
            logger.warning(message, extra=self._log_fields)


def wait_for_work(
    study: Study,
    stop: threading.Event,
    on_poll: Callable[[], None] = lambda: None,
    on_counts: Callable[[StudyCounts], None] = lambda counts: None,
) -> bool:
    """Wait until a study that was done has trials to train again, because it was extended.

    Overdue trials of other studies are requeued meanwhile.

    Args:
        study: The study.
        stop: Ends the wait, from any thread.
        on_poll: Called at each poll.
        on_counts: Called with what each successful poll has read.

    Returns:
        Whether there are trials to train; False once `stop` is set.

    Raises:
        AccessRefusedError: The database has refused the login for the duration of a lease.
        MiiiiSearchError: The study was deleted.
    """
    retry, others = DatabaseRetry(study.spec.lease_seconds), OtherStudies(study.database, study.name)

    def has_work() -> bool:
        others.requeue_overdue()
        counts = study.read_counts()
        on_counts(counts)
        # If the budget is used up, trials may still run. Their own workers end them.
        return not study.is_done(counts.counts) and read_exhausted_limit(study.queue, study.spec.budget) is None

    while not stop.wait(POLL_SECONDS):
        on_poll()
        try:
            if retry.attempt(has_work):
                return True
        except StorageUnavailableError:
            others.note_outage()
    return False


def wait_for_study(
    database: Database,
    name: str | None,
    stop: threading.Event,
    on_poll: Callable[[], None] = lambda: None,
) -> Study | None:
    """Wait until a study exists. Overdue trials of other studies are requeued meanwhile.

    Args:
        database: The database.
        name: Name of the study; None waits for any study.
        stop: Ends the wait, from any thread.
        on_poll: Called at each poll.

    Returns:
        The study, or None once `stop` is set.

    Raises:
        MiiiiSearchError: No name is given, and there are several studies.
    """
    retry, others = DatabaseRetry(), OtherStudies(database, name)
    logged = ""

    def find() -> Study:
        others.requeue_overdue()
        return open_study(database, name)

    while not stop.is_set():
        on_poll()
        try:
            return retry.attempt(find)
        except StudyNotFoundError as error:
            if str(error) != logged:
                logged = str(error)
                logger.info(f"waiting: {logged}")
        except StorageUnavailableError:
            others.note_outage()
        stop.wait(POLL_SECONDS)
    return None
