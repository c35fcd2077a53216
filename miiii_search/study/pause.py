"""Pausing a study: no trial is claimed, workers return their trials to the queue, and wall time stops.

The pause is an attribute of the study. A claim reads it in its own transaction, under the study's lock. Workers,
coordinators and `status` read it from time to time with `Study.refresh`.
"""

from __future__ import annotations

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.study_attrs import PAUSED_KEY, STARTED_KEY
from miiii_search.study.study import Study


def pause(study: Study) -> bool:
    """Pause a study. No trial of it is claimed from then on.

    Returns:
        Whether the study was paused by this call; False if it was paused already.

    Raises:
        StudyDeletedError: The study was deleted.
        MiiiiSearchError: The study is done.
    """
    if study.is_done():
        raise MiiiiSearchError(
            f"study `{study.name}` is done, there is nothing to pause; add trials with miiii-search extend --trials N"
        )
    with study.store.transaction() as tx:
        tx.lock()
        if tx.read_attributes(PAUSED_KEY):
            return False
        tx.write_attributes({PAUSED_KEY: tx.now()})
    study.refresh()
    return True


def resume(study: Study) -> bool:
    """Resume a paused study. Its budget of wall time does not count the pause.

    Returns:
        Whether the study was resumed by this call; False if it was not paused.

    Raises:
        StudyDeletedError: The study was deleted.
    """
    with study.store.transaction() as tx:
        tx.lock()
        times = tx.read_attributes(PAUSED_KEY, STARTED_KEY)
        if PAUSED_KEY not in times:
            return False
        if STARTED_KEY in times:
            started, paused = times[STARTED_KEY], times[PAUSED_KEY]
            pause_seconds = tx.now() - max(started, paused)
            tx.write_attributes({STARTED_KEY: started + max(pause_seconds, 0.0)})
        tx.remove_attributes([PAUSED_KEY])
    study.refresh()
    return True
