"""Changes of the study that its worker reacts to: a pause, an extension, the end, or nothing to train."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping

from optuna.trial import TrialState

from miiii_search.errors import StorageUnavailableError
from miiii_search.storage.hints import hint
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.state import describe_pause
from miiii_search.study.study import Study
from miiii_search.trial_queue.abandoned import describe_abandoned
from miiii_search.worker.budget_watch import BudgetWatch
from miiii_search.worker.fetcher import TrialFetcher

logger = logging.getLogger(__name__)

PAUSED_ADVICE = "this worker waits until it is resumed"

NOTHING = "nothing to train for now"

AWAITS_SELECTION = (
    f"{NOTHING}: once every configuration has run, the coordinator queues further seeds of the best; "
    "if none runs, start one"
)

REFRESH_SECONDS = 5.0
"""Seconds between two looks at whether the study was paused or extended. A quarter of a lease, if that is less."""


class StudyWatch:
    """Follows the state of one worker's study. For use by the worker's main thread.

    Args:
        study: The study.
        budget: The worker's part of the budget.
        fetcher: Claims the worker's trials.
        retry: Retries for the database.
        log_fields: Fields of every log record.
    """

    def __init__(
        self,
        study: Study,
        budget: BudgetWatch,
        fetcher: TrialFetcher,
        retry: DatabaseRetry,
        log_fields: Mapping[str, str],
    ) -> None:
        self._study = study
        self._budget = budget
        self._fetcher = fetcher
        self._retry = retry
        self._log_fields = log_fields
        self._refresh_at = 0.0
        self._idle_reason: str | None = None
        """Reason that was found last for having nothing to train."""
        self.is_paused = False

    def refresh(self) -> None:
        """Look from time to time whether the study was paused, resumed or extended.

        Raises:
            MiiiiSearchError: The study was deleted.
        """
        if time.monotonic() >= self._refresh_at:
            with contextlib.suppress(StorageUnavailableError):  # tried again later
                self._retry.attempt(self._study.refresh)
            self._refresh_at = time.monotonic() + min(REFRESH_SECONDS, self._study.spec.lease_seconds / 4)
            self._budget.refresh()
        if self._study.paused != self.is_paused:
            self.is_paused = self._study.paused
            message = describe_pause(self._study.name, self.is_paused)
            self._log(f"{message}: {PAUSED_ADVICE}" if self.is_paused else message)

    def is_done(self) -> bool:
        """Return whether the study is done, when there is nothing to train. Log what the worker waits for otherwise.

        Raises:
            MiiiiSearchError: The waiting trials do not fit into the memory of this machine.
        """
        try:
            self._budget.release()
            if self._retry.attempt(self._study.is_done):
                return True
            self._retry.attempt(self._fetcher.check_fit)
            if not self.is_paused:
                self._log_idle_reason(*self._retry.attempt(self._find_idle_reason))
        except StorageUnavailableError:
            pass
        return False

    def forget_idle_reason(self) -> None:
        """Have the next reason for having nothing to train logged, even if it is the last one again."""
        self._idle_reason = None

    def _log_idle_reason(self, reason: str, message: str) -> None:
        if message and reason != self._idle_reason:
            self._log(message)
        self._idle_reason = reason

    def _find_idle_reason(self) -> tuple[str, str]:
        """Return why there is nothing to train in a study that is not done: an identifier and a message.

        The message is empty if there is nothing to log.
        """
        study = self._study
        coordinate = hint("coordinate", "--study", study.name, database=study.database)
        if abandoned := study.queue.find_abandoned():
            message = f"{NOTHING}: {describe_abandoned(abandoned)}; start one: {coordinate}"
            return f"abandoned {[trial.number for trial in abandoned]}", message
        counts = study.counts()
        if counts[TrialState.WAITING]:
            return "waiting", ""  # about to be claimed; or too large, which the lane tuner has logged
        if counts[TrialState.RUNNING]:
            return "others", f"{NOTHING}: the remaining trials run on other workers; any that return are taken over"
        if study.awaits_selection:
            return "selection", f"{AWAITS_SELECTION}: {coordinate}"
        return "nothing", ""

    def _log(self, message: str) -> None:
        logger.info(message, extra=self._log_fields)
