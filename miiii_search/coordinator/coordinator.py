"""The coordinator: takes back overdue trials of every study, gives the best configurations of its own study their
further seeds, keeps that study's note, and decides that it is done."""

from __future__ import annotations

import logging
import math
import shlex
import threading
import time
from collections.abc import Callable

from optuna.trial import TrialState

from miiii_search.coordinator.dashboard_note import StudyNote
from miiii_search.errors import StorageUnavailableError, StudyNotFoundError
from miiii_search.storage.database import Database
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.hints import hint
from miiii_search.study.open import open_study
from miiii_search.study.overview import list_studies
from miiii_search.study.promote import queue_further_seeds
from miiii_search.study.state import A_WORKER, StudyState, describe_pause, describe_waiting, missing_process
from miiii_search.study.stored_spec import upgrade_stored_spec
from miiii_search.study.study import Study, StudyCounts
from miiii_search.trial_queue.abandoned import find_studies_with_overdue
from miiii_search.trial_queue.budget import read_exhausted_limit
from miiii_search.trial_queue.requeue import requeue_overdue

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0

NOBODY_SECONDS = 60.0
"""For which no worker has trained a study before the coordinator says so: starting one takes a while."""


def supervise(
    study: Study,
    stop: threading.Event,
    on_poll: Callable[[], None] = lambda: None,
    observe: Callable[[StudyCounts], None] = lambda glance: None,
) -> bool:
    """Supervises until the study is done (True) or `stop` is set (False). `on_poll` is called at each look, and
    `observe` is told what it found.

    Several may run at once: what one has done the others find done. While the database is away, it waits; then workers,
    who could not reach it either, get the period of a lease to come back first.

    Raises `AccessRefusedError` once the database has refused the login for the period of a lease.
    """
    poll, patience = min(POLL_SECONDS, study.spec.lease_seconds / 4), DatabaseRetry(study.spec.lease_seconds)
    note, paused, others = StudyNote(study), False, OtherStudies(study.database, study.name)
    fields = {"study": study.name}
    mismatch: str | None = None
    patient_until = 0.0
    trained_at: float | None = time.monotonic()  # None once it was said that nobody trains

    def look() -> bool:
        nonlocal paused, mismatch, trained_at
        is_early = time.monotonic() < patient_until
        for number in () if is_early else requeue_overdue(study.database, study.study_id):
            logger.warning(
                f"trial {number} went back to the queue: its worker was silent for {study.spec.lease_seconds:g} s",
                extra=fields | {"trial": number},
            )
        others.requeue_overdue()
        if (queued := queue_further_seeds(study)) is not None:
            logger.info(queued, extra=fields)
        on_poll()
        glance = study.read_counts()
        observe(glance)
        done = study.is_done(glance.counts)
        if study.paused != paused:
            paused = study.paused
            logger.info(describe_pause(study.name, paused), extra=fields)
        if study.version_mismatch != mismatch:
            mismatch = study.version_mismatch
            if mismatch:
                logger.warning(mismatch, extra=fields)
            else:
                logger.info(f"study `{study.name}` goes on with this version", extra=fields)
        note.refresh(done)
        missing = missing_process(glance.counts, is_selecting=study.awaits_selection, is_abandoned=False)
        if done or paused or glance.counts[TrialState.RUNNING] or missing != A_WORKER:
            trained_at = time.monotonic()
        elif trained_at is not None and time.monotonic() - trained_at >= NOBODY_SECONDS:
            trained_at = None
            logger.warning(describe_waiting(study.name, StudyState.WAITING_FOR_WORKER, _to_work(study)), extra=fields)
        return done

    if upgrade_stored_spec(study):
        logger.info(f"study `{study.name}` was created by an older version; its spec is in today's format now")
    while not stop.is_set():
        try:
            if patience.attempt(look):
                return True
        except StorageUnavailableError:
            patient_until = time.monotonic() + study.spec.lease_seconds
            others.database_was_away()
        stop.wait(poll)
    return False


def _to_work(study: Study) -> str:
    return hint("work", "--study", study.name, database=study.database)


def wait_for_more(
    study: Study,
    stop: threading.Event,
    on_poll: Callable[[], None] = lambda: None,
    observe: Callable[[StudyCounts], None] = lambda glance: None,
) -> bool:
    """Waits until there is something to train in a study where there was nothing (True), or `stop` is set (False).

    `on_poll` is called at each look, `observe` with what one that succeeded saw. Raises `AccessRefusedError` once the
    database has refused the login for the period of a lease.
    """
    patience = DatabaseRetry(study.spec.lease_seconds)
    others = OtherStudies(study.database, study.name)

    def has_more() -> bool:
        others.requeue_overdue()
        glance = study.read_counts()
        observe(glance)
        # What still runs where the budget is spent is others' to end.
        return (
            not study.is_done(glance.counts)
            and read_exhausted_limit(study.database, study.study_id, study.spec.budget) is None
        )

    while not stop.wait(POLL_SECONDS):
        on_poll()
        try:
            if patience.attempt(has_more):
                return True
        except StorageUnavailableError:
            others.database_was_away()
    return False


def wait_for_study(
    database: Database,
    name: str | None,
    stop: threading.Event,
    on_poll: Callable[[], None] = lambda: None,
) -> Study | None:
    """Waits until there is a study of this name, or any where no name is given; returns it, or None once `stop` is set.

    `on_poll` is called at each look. Raises `MiiiiSearchError` where no name is given and there are several studies.
    """
    patience, others = DatabaseRetry(), OtherStudies(database, name)
    said = ""

    def look() -> Study:
        others.requeue_overdue()
        return open_study(database, name)

    while not stop.is_set():
        on_poll()
        try:
            return patience.attempt(look)
        except StudyNotFoundError as error:
            if str(error) != said:
                said = str(error)
                logger.info(f"waiting: {said}")
        except StorageUnavailableError:
            others.database_was_away()
        stop.wait(POLL_SECONDS)
    return None


def unfinished_others(study: Study) -> list[str]:
    """One line for each other study of the storage that is neither done nor paused: nobody here trains it."""
    return [
        f"study `{other.name}` is not done ({other.state}), and this coordinator only takes back its overdue trials: "
        f"--study {shlex.quote(other.name)} or MIIII_STUDY goes on with it"
        for other in list_studies(study.database)
        if other.name != study.name and (other.state == StudyState.RUNNING or other.state.is_waiting)
    ]


class OtherStudies:
    """Takes back overdue trials of all studies but one: of a study that was left nobody else may be in charge.

    Any number of coordinators may do so at once.
    """

    def __init__(self, database: Database, name: str | None) -> None:
        self._database = database
        self._name = name
        self._away_at = -math.inf

    def database_was_away(self) -> None:
        """Gives workers, who could not reach the database either, the period of a lease to come back."""
        self._away_at = time.monotonic()

    def requeue_overdue(self) -> None:
        """Puts overdue trials back into the queues of their studies."""
        with self._database.engine.connect() as connection:
            found = find_studies_with_overdue(connection)
        for study_id, name, seconds in found:
            if name == self._name or time.monotonic() < self._away_at + seconds:
                continue
            for number in requeue_overdue(self._database, study_id):
                logger.warning(
                    f"trial {number} of study `{name}` went back to the queue: its worker was silent",
                    extra={"study": name, "trial": number},
                )
