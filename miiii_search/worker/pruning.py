"""Asks the study's pruner about a worker's trials, at every rung that was reported."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.pruners.base import NopPruner, PruningContext
from miiii_search.pruners.factory import OptunaPruner, make_pruner
from miiii_search.pruners.history import history_at_rungs
from miiii_search.pruners.peers import Peer, PeerReader
from miiii_search.storage.retry import driver_message, is_database_error
from miiii_search.study.study import Study
from miiii_search.worker.active_trial import ActiveTrial

logger = logging.getLogger(__name__)


class PruningEvaluator:
    """The pruner of one study, and the trials that it compares with. For use by the worker's main thread.

    A pruner that fails is logged, and prunes nothing. It is asked about the next trial as before.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._optuna_study = study.as_optuna()
        self._pruner = make_pruner(study.spec, self._optuna_study)
        self._peers = PeerReader(study.store)
        self._failures: set[str] = set()

    def evaluate(self, trials: Sequence[ActiveTrial]) -> list[str | None]:
        """Ask the pruner about the undecided rungs of trials.

        Args:
            trials: Trials that are being trained and have undecided rungs. They have none afterwards.

        Returns:
            For each trial, the reason for which it is pruned; None if it continues.

        Raises:
            StorageUnavailableError: The database is unavailable. Nothing was decided.
            MiiiiSearchError: The study was deleted. Nothing was decided.
        """
        peers = {} if isinstance(self._pruner, NopPruner) else self._read_trials(trials)
        reasons = [self._decide(active, peers) for active in trials]
        for active in trials:
            active.reports.undecided = []
        return reasons

    def _decide(self, active: ActiveTrial, peers: Mapping[int, Any]) -> str | None:
        """Return why a trial is pruned at one of its undecided rungs, or None."""
        if (trial := peers.get(active.lease.trial_id)) is None:
            return None  # the pruner needs none, or another program has deleted the trial
        history = history_at_rungs(active.experiment, active.history.record())
        for epoch in active.reports.undecided:
            context = PruningContext(active.experiment, epoch, history.until(epoch), trial, list(peers.values()))
            if (reason := self._ask(context, active.lease.number)) is not None:
                return reason
        return None

    def _ask(self, context: PruningContext, number: int) -> str | None:
        """Return why the trial with this number is pruned, or None."""
        try:
            return self._pruner.should_prune(context)
        except Exception as error:
            if is_database_error(error) or isinstance(error, MiiiiSearchError):
                raise  # Optuna's pruners read the database once more
            failure = f"{type(error).__name__}: {driver_message(error)}"
            if failure not in self._failures:
                self._failures.add(failure)
                logger.warning(
                    f"pruning.rule = '{self._study.spec.pruning.rule}' failed on trial {number} at epoch "
                    f"{context.epoch:,} ({failure}): the trial continues, and so does every other trial on which the "
                    "pruner fails in this way",
                    extra={"study": self._study.name, "trial": number, "epoch": context.epoch},
                )
            return None

    def _read_trials(self, asked: Iterable[ActiveTrial]) -> Mapping[int, Any]:
        """Return the trials that the pruner sees, by their ids."""
        if not self._pruner.uses_peers:
            return {trial.lease.trial_id: Peer(trial.lease.trial_id, TrialState.RUNNING) for trial in asked}
        if isinstance(self._pruner, OptunaPruner):
            try:
                return {trial._trial_id: trial for trial in self._optuna_study.get_trials(deepcopy=False)}
            except KeyError:
                self._study.refresh()  # raises `StudyDeletedError` if the study was deleted
                raise
        rungs = {epoch for trial in asked for epoch in trial.reports.undecided}
        return {peer.trial_id: peer for peer in self._peers.read(rungs)}
