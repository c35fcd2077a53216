"""Which of a worker's trials are given up: the study's rule, asked at every rung that was reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from miiii_search.search.assignment import Assignment
from miiii_search.search.peers import Peers
from miiii_search.search.pruning import Never, OptunaRule, make_rule
from miiii_search.search.study import Study


class Judge:
    """The rule of one study, and what it compares with. For a worker's main thread."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._optunas = study.load()
        self._rule = make_rule(study.spec, self._optunas)
        self._peers = Peers(study.database, study.study_id)

    def judge(self, assignments: Iterable[Assignment]) -> None:
        """Sets why those that are to be given up are; asks about every rung that was not decided yet.

        Raises what a database that is away raises, or `UserError` for a study that was deleted; has then decided
        nothing.
        """
        undecided = [a for a in assignments if a.undecided]
        asked = [] if isinstance(self._rule, Never) else [a for a in undecided if a.end is None]
        trials = self._read({epoch for a in asked for epoch in a.undecided}) if asked else {}
        for assignment in asked:
            if (trial := trials.get(assignment.lease.trial_id)) is None:
                continue  # somebody deleted it
            for epoch in assignment.undecided:
                if assignment.pruned is None:
                    assignment.pruned = self._rule.decide(trial, list(trials.values()), epoch)
        for assignment in undecided:
            assignment.undecided = []

    def _read(self, rungs: set[int]) -> Mapping[int, Any]:
        """The trials by their ids, as the rule wants them."""
        if isinstance(self._rule, OptunaRule):
            try:
                return {trial._trial_id: trial for trial in self._optunas.get_trials(deepcopy=False)}
            except KeyError:
                self._study.refresh()  # says so if somebody deleted it
                raise
        return {peer.trial_id: peer for peer in self._peers.read(rungs)}
