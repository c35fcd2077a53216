"""Which of a worker's trials are given up: the study's rule, asked at every rung that was reported."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.pruners.base import NopPruner, PruningContext
from miiii_search.pruners.factory import OptunaPruner, make_pruner
from miiii_search.pruners.history import history_at_rungs
from miiii_search.pruners.peers import Peer, PeerReader
from miiii_search.storage.retry import driver_message
from miiii_search.study.study import Study
from miiii_search.worker.active_trial import ActiveTrial

logger = logging.getLogger(__name__)


class PruningEvaluator:
    """The rule of one study, and what it compares with. For a worker's main thread.

    A rule that fails is logged, and prunes nothing; the next trial is asked about as before.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._optunas = study.as_optuna()
        self._rule = make_pruner(study.spec, self._optunas)
        self._peers = PeerReader(study.database, study.study_id)
        self._failures: set[str] = set()

    def evaluate(self, assignments: Iterable[ActiveTrial]) -> None:
        """Sets why those that are to be given up are; asks about every rung that was not decided yet.

        Raises what a database that is away raises, or `MiiiiSearchError` for a study that was deleted; has then decided
        nothing.
        """
        undecided = [a for a in assignments if a.undecided]
        asked = [] if isinstance(self._rule, NopPruner) else [a for a in undecided if a.end is None]
        trials = self._read(asked) if asked else {}
        for assignment in asked:
            if (trial := trials.get(assignment.lease.trial_id)) is None:
                continue  # somebody deleted it
            history = history_at_rungs(assignment.experiment, assignment.record())
            for epoch in assignment.undecided:
                if assignment.pruned is None:
                    context = PruningContext(
                        assignment.experiment, epoch, history.until(epoch), trial, list(trials.values())
                    )
                    assignment.pruned = self._decide(context, assignment.lease.number)
        for assignment in undecided:
            assignment.undecided = []

    def _decide(self, context: PruningContext, number: int) -> str | None:
        try:
            return self._rule.should_prune(context)
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, MiiiiSearchError):
            raise  # a pruner of Optuna's looks at the database again
        except Exception as error:
            what = f"{type(error).__name__}: {driver_message(error)}"
            if what not in self._failures:
                self._failures.add(what)
                logger.warning(
                    f"pruning.rule = '{self._study.spec.pruning.rule}' failed on trial {number} at epoch "
                    f"{context.epoch:,} ({what}): it goes on, and so do others where this happens",
                    extra={"study": self._study.name, "trial": number, "epoch": context.epoch},
                )
            return None

    def _read(self, asked: Iterable[ActiveTrial]) -> Mapping[int, Any]:
        """The trials by their ids, as the rule wants them."""
        if not self._rule.uses_peers:
            return {a.lease.trial_id: Peer(a.lease.trial_id, TrialState.RUNNING) for a in asked}
        if isinstance(self._rule, OptunaPruner):
            try:
                return {trial._trial_id: trial for trial in self._optunas.get_trials(deepcopy=False)}
            except KeyError:
                self._study.refresh()  # says so if somebody deleted it
                raise
        rungs = {epoch for assignment in asked for epoch in assignment.undecided}
        return {peer.trial_id: peer for peer in self._peers.read(rungs)}
