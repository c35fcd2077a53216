"""The status of a study."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from miiii_search.study.best_trials import read_best_trials
from miiii_search.study.finished_trials import (
    FinishedTrial,
    PrunedTrial,
    mean_epochs_trained,
    read_finished_trials,
    read_pruned_trials,
)
from miiii_search.study.hints import hint
from miiii_search.study.replicates import MEDIAN, SeedStats, rank_configurations
from miiii_search.study.running_trials import RunningTrial, read_running_trials
from miiii_search.study.state import A_WORKER, expected_trials, find_missing_process, has_all_trials
from miiii_search.study.study import Study
from miiii_search.trial_queue.abandoned import AbandonedTrial, find_abandoned
from miiii_search.trial_queue.budget import exhausted_limit, read_usage

CONFIGURATIONS = 20
"""Configurations that `status --json` lists of a study with replicates."""


BEST_TRIALS = 5
"""FinishedTrial trials that a view lists, the best ones."""


LAST_PRUNED = 3
"""PrunedTrial trials that a view lists, the last ones."""


@dataclass(frozen=True)
class Status:
    """A study at one moment."""

    study: str
    counts: dict[str, int]
    n_trials: int
    epochs: int
    running: list[RunningTrial]
    best: FrozenTrial | None
    done: bool
    budget: dict[str, tuple[float, float]]
    """What of each limit of the budget is used, and how much it is; not of the trials."""
    spent: str | None
    """Which limit ended the study, or is about to, in words."""
    paused: bool = False
    best_trials: list[FrozenTrial] = field(default_factory=list)
    """The best of the trials that have ended, `BEST_TRIALS` at most."""
    pruned: list[PrunedTrial] = field(default_factory=list)
    """The trials that were given up, in that order: all of them, or the last ones."""
    epochs_trained: float | None = None
    """The mean of the trials that have ended; None before the first."""
    version_mismatch: str | None = None
    """Why workers of this version do not train the study, if they do not."""
    configurations: list[SeedStats] = field(default_factory=list)
    """The configurations over their seeds, best first; none where each has one seed."""
    abandoned: list[AbandonedTrial] = field(default_factory=list)
    """Trials that wait for a coordinator to take them back."""
    waits_for: str | None = None
    """Who is missing for the study to go on: a worker, or a coordinator."""
    advice: str | None = None
    """The command that starts who is missing."""

    @property
    def epochs_per_second(self) -> float:
        """The throughput of all lanes together."""
        return sum(trial.epochs_per_second for trial in self.running)

    @property
    def seconds_left(self) -> float | None:
        """At the present throughput.

        A trial is expected to train as long as the ended ones did on average, or, once it has trained longer, to
        the end of its budget.
        """
        if self.done:
            return 0.0
        if not self.epochs_per_second:
            return None
        expected = self.epochs if self.epochs_trained is None else self.epochs_trained
        unstarted = self.n_trials - sum(self.counts.values()) + self.counts["waiting"]
        ahead = unstarted * expected + sum(
            (expected if trial.epoch < expected else self.epochs) - trial.epoch for trial in self.running
        )
        hours, wall = self.budget.get("wall_hours", (0.0, math.inf))
        return min(float(ahead / self.epochs_per_second), max(3600 * (wall - hours), 0.0))

    def to_json(self) -> dict[str, Any]:
        """What `status --json` prints."""
        best = self.best
        return {
            "study": self.study,
            "counts": self.counts,
            "best": best
            and {
                "number": best.number,
                "value": best.value,
                "params": best.params,
                "epochs_to_solve": best.user_attrs.get("epochs_to_solve"),
            },
            "configurations": [standing.to_json() for standing in self.configurations[:CONFIGURATIONS]],
            "done": self.done,
            "paused": self.paused,
            "waits_for": self.waits_for,
            "advice": self.advice,
            "waits": self.version_mismatch,
            "budget": {name: {"used": round(used, 4), "limit": limit} for name, (used, limit) in self.budget.items()},
            "pruned": [{"number": trial.number, "epoch": trial.epoch, "reason": trial.reason} for trial in self.pruned],
            "running": [
                {
                    "number": trial.number,
                    "worker": trial.worker,
                    "epoch": trial.epoch,
                    "saved_epoch": trial.saved_epoch,
                    "silent_seconds": round(trial.silent_seconds, 1),
                }
                for trial in self.running
            ],
            "abandoned": [
                {
                    "number": trial.number,
                    "worker": trial.worker,
                    "silent_seconds": round(trial.silent_seconds, 1),
                }
                for trial in self.abandoned
            ],
            "epochs_per_second": round(self.epochs_per_second, 2),
            "seconds_left": self.seconds_left,
        }


class StatusReader:
    """Reads a study's status again and again. For one thread.

    It remembers the ended trials of a study with replicates, which do not change, and reads only those that are new.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._ended: dict[int, FinishedTrial] = {}

    def read(self, pruned: int | None = LAST_PRUNED) -> Status:
        """Reads the study as it is now, with the last `pruned` trials that were given up, or all of them.

        Raises `MiiiiSearchError` if somebody deleted the study.
        """
        study = self._study
        study.refresh()
        counts = {state.name.lower(): n for state, n in study.counts().items()}
        total = sum(counts.values())
        order = ("waiting", "running", "complete", "pruned", "fail")
        budget, over = _read_budget(study)
        ended = not counts["waiting"] and has_all_trials(study.spec, study.selection, total)
        done = not counts["running"] and (ended or over is not None)
        best_trials = read_best_trials(study, BEST_TRIALS)
        with study.database.engine.connect() as connection:
            running, served = read_running_trials(connection, study)
            abandoned = find_abandoned(connection, study.study_id)
            given_up = read_pruned_trials(connection, study.study_id, pruned) if counts["pruned"] else []
            epochs_trained = mean_epochs_trained(connection, study.study_id)
        waits_for = None
        if not (done or study.paused or served):
            waits_for = find_missing_process(counts, is_selecting=study.awaits_selection, is_abandoned=bool(abandoned))
        seeds = study.spec.replicates.count
        return Status(
            study=study.name,
            counts={name: counts[name] for name in order},
            n_trials=expected_trials(study.spec, study.selection, total),
            epochs=study.spec.experiment.epochs,
            running=running,
            best=best_trials[0] if best_trials and best_trials[0].state == TrialState.COMPLETE else None,
            done=done,
            budget=budget,
            spent=over,
            paused=study.paused,
            version_mismatch=study.version_mismatch,
            best_trials=best_trials,
            pruned=given_up,
            epochs_trained=epochs_trained,
            configurations=self.rank_configurations() if seeds > 1 else [],
            abandoned=abandoned,
            waits_for=waits_for,
            advice=_advice(study, waits_for, abandoned),
        )

    def rank_configurations(self, by: str = MEDIAN) -> list[SeedStats]:
        """Reads the configurations over their seeds, best first; see `replicates.standings`."""
        study = self._study
        with study.database.engine.connect() as connection:
            self._ended = read_finished_trials(connection, study.study_id, self._ended)
        trials = sorted(self._ended.values(), key=lambda trial: trial.number)
        return rank_configurations(trials, study.spec.replicates.count, by)


def read_status(study: Study, pruned: int | None = None) -> Status:
    """Reads the study as it is now; see `StatusReader.read`."""
    return StatusReader(study).read(pruned)


def _advice(study: Study, waits_for: str | None, abandoned: list[AbandonedTrial]) -> str | None:
    if waits_for is None and not abandoned:
        return None
    command = "work" if waits_for == A_WORKER and not abandoned else "coordinate"
    return hint(command, "--study", study.name, database=study.database)


def _read_budget(study: Study) -> tuple[dict[str, tuple[float, float]], str | None]:
    limits = study.spec.budget
    if not limits.has_limits:
        return {}, None
    with study.database.engine.connect() as connection:
        usage = read_usage(connection, study.study_id)
    used = {
        "solved": usage.solved,
        "device_hours": usage.device_seconds / 3600,
        "wall_hours": usage.wall_seconds / 3600,
    }
    known = {name: getattr(limits, name) for name in used}
    return {name: (used[name], limit) for name, limit in known.items() if limit is not None}, exhausted_limit(
        limits, usage
    )
