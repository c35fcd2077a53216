"""Overdue trials of the studies that a coordinator does not supervise."""

from __future__ import annotations

import logging
import math
import shlex
import time

from miiii_search.storage.database import Database
from miiii_search.study.overview import list_studies
from miiii_search.study.state import StudyState
from miiii_search.study.study import Study
from miiii_search.trial_queue.trial_queue import TrialQueue, find_studies_with_overdue

logger = logging.getLogger(__name__)


class OtherStudies:
    """Returns overdue trials of all studies but one to their queues. Those studies may have no coordinator.

    Any number of coordinators may do so at once.

    Args:
        database: The database of the studies.
        name: Name of the study to leave out; None leaves out none.
    """

    def __init__(self, database: Database, name: str | None) -> None:
        self._database = database
        self._name = name
        self._away_at = -math.inf

    def note_outage(self) -> None:
        """Grant workers, which could not reach the database either, the duration of a lease to renew their leases."""
        self._away_at = time.monotonic()

    def requeue_overdue(self) -> None:
        """Return overdue trials to the queues of their studies."""
        for study_id, name, seconds in find_studies_with_overdue(self._database):
            if name == self._name or time.monotonic() < self._away_at + seconds:
                continue
            for number in TrialQueue(self._database, study_id).requeue_overdue():
                logger.warning(
                    f"trial {number} of study `{name}` went back to the queue: its worker was silent",
                    extra={"study": name, "trial": number},
                )


def describe_unfinished_studies(study: Study) -> list[str]:
    """Return one line for each other study of the database that is neither done nor paused."""
    return [
        f"study `{other.name}` is not done ({other.state}), and this coordinator only returns its overdue trials to "
        f"the queue; to supervise it, use --study {shlex.quote(other.name)} or MIIII_STUDY"
        for other in list_studies(study.database)
        if other.name != study.name and (other.state == StudyState.RUNNING or other.state.is_waiting)
    ]
