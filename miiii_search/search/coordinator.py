"""The coordinator: takes back overdue trials, gives the best configurations their further seeds, keeps the study's
note, and decides that the study is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from miiii_search.search import leases
from miiii_search.search.budget import spent_by_now
from miiii_search.search.hints import hint
from miiii_search.search.patience import Away, Patience
from miiii_search.search.selecting import queue_further_seeds
from miiii_search.search.status import A_WORKER, who_is_missing
from miiii_search.search.study import Glance, Study
from miiii_search.search.study_note import StudyNote

POLL_SECONDS = 2.0

NOBODY_SECONDS = 60.0
"""For which no worker has trained a study before the coordinator says so: starting one takes a while."""


def supervise(
    study: Study,
    stop: threading.Event,
    say: Callable[[str], None] = lambda line: None,
    on_poll: Callable[[], None] = lambda: None,
    observe: Callable[[Glance], None] = lambda glance: None,
) -> bool:
    """Supervises until the study is done (True) or `stop` is set (False). `on_poll` is called at each look, and
    `observe` is told what it found.

    Several may run at once: what one has done the others find done. While the database is away, it waits; then workers,
    who could not reach it either, get the period of a lease to come back first.

    Raises `AccessRefusedError` once the database has refused the login for the period of a lease.
    """
    poll, patience = min(POLL_SECONDS, study.spec.lease_seconds / 4), Patience(say, study.spec.lease_seconds)
    note, paused = StudyNote(study), False
    mismatch: str | None = None
    patient_until = 0.0
    trained_at: float | None = time.monotonic()  # None once it was said that nobody trains

    def look() -> bool:
        nonlocal paused, mismatch, trained_at
        is_early = time.monotonic() < patient_until
        for number in () if is_early else leases.requeue_overdue(study.database, study.study_id):
            say(f"trial {number} went back to the queue: its worker was silent for {study.spec.lease_seconds:g} s")
        if (queued := queue_further_seeds(study)) is not None:
            say(queued)
        on_poll()
        glance = study.glance()
        observe(glance)
        done = study.is_done(glance.counts)
        if study.paused != paused:
            paused = study.paused
            say(f"study `{study.name}` is paused" if paused else f"study `{study.name}` goes on")
        if study.mismatch != mismatch:
            mismatch = study.mismatch
            say(mismatch or f"study `{study.name}` goes on with this version")
        note.refresh(done)
        counts = {state.name.lower(): n for state, n in glance.counts.items()}
        missing = who_is_missing(counts, is_selecting=study.awaits_selection, is_abandoned=False)
        if done or paused or counts["running"] or missing != A_WORKER:
            trained_at = time.monotonic()
        elif trained_at is not None and time.monotonic() - trained_at >= NOBODY_SECONDS:
            trained_at = None
            say(f"no worker trains study `{study.name}`; start one: {_to_work(study)}")
        return done

    while not stop.is_set():
        try:
            if patience.attempt(look):
                return True
        except Away:
            patient_until = time.monotonic() + study.spec.lease_seconds
        stop.wait(poll)
    return False


def _to_work(study: Study) -> str:
    return hint("work", "--study", study.name, database=study.database)


def wait_for_more(
    study: Study,
    stop: threading.Event,
    say: Callable[[str], None] = lambda line: None,
    on_poll: Callable[[], None] = lambda: None,
    observe: Callable[[Glance], None] = lambda glance: None,
) -> bool:
    """Waits until there is something to train in a study where there was nothing (True), or `stop` is set (False).

    `on_poll` is called at each look, `observe` with what one that succeeded saw. Raises `AccessRefusedError` once the
    database has refused the login for the period of a lease.
    """
    patience = Patience(say, study.spec.lease_seconds)

    def has_more() -> bool:
        glance = study.glance()
        observe(glance)
        # What still runs where the budget is spent is others' to end.
        return (
            not study.is_done(glance.counts) and spent_by_now(study.database, study.study_id, study.spec.budget) is None
        )

    while not stop.wait(POLL_SECONDS):
        on_poll()
        try:
            if patience.attempt(has_more):
                return True
        except Away:
            pass
    return False
