"""The status of a study: counts, best trials, running trials, throughput and time left.

Views refresh every two seconds, also for studies of 10,000 trials. So counts are aggregates of the database, and only
the few trials that a view shows are read completely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from miiii_search.storage.abandoned import AbandonedTrial
from miiii_search.storage.hints import hint
from miiii_search.storage.records import FinishedTrial, PrunedTrial, RunningTrial
from miiii_search.study.best_trials import read_best_trials
from miiii_search.study.gpu_predictions import predict_throughput
from miiii_search.study.replicates import MEDIAN, SeedStats, rank_configurations
from miiii_search.study.state import A_WORKER, StudyState, expected_trials, is_done, missing_process, study_state
from miiii_search.study.study import Study
from miiii_search.study.trials import counts_by_name
from miiii_search.trial_queue.budget import exhausted_limit

CONFIGURATIONS = 20
"""Maximum number of configurations in `status --json`."""

BEST_TRIALS = 5
"""Maximum number of finished trials in a view, the best ones."""

LAST_PRUNED = 3
"""Maximum number of pruned trials in a view, the last ones."""


@dataclass(frozen=True)
class Status:
    """The status of a study at one moment."""

    study: str
    state: StudyState
    counts: dict[str, int]
    """Number of trials in each state, by the state's name."""
    n_trials: int
    """Number of trials that the study has when it is done."""
    epochs: int
    """Epoch budget of a trial."""
    running: list[RunningTrial]
    best: FrozenTrial | None
    """Best complete trial."""
    budget: dict[str, tuple[float, float]]
    """For each limit of the budget, how much is used, and the limit. The number of trials is not included."""
    exhausted_limit: str | None
    """Sentence that says which limit of the budget is reached; None if none is."""
    paused: bool = False
    best_trials: list[FrozenTrial] = field(default_factory=list)
    """Best finished trials, at most `BEST_TRIALS`."""
    pruned: list[PrunedTrial] = field(default_factory=list)
    """Pruned trials in the order in which they were pruned: all of them, or the last ones."""
    epochs_trained: float | None = None
    """Mean number of epochs of the finished trials; None before the first."""
    version_mismatch: str | None = None
    """Reason why workers of this version must not train the study; None if they may."""
    configurations: list[SeedStats] = field(default_factory=list)
    """Configurations over their seeds, best first; empty if each has one seed."""
    abandoned: list[AbandonedTrial] = field(default_factory=list)
    """Overdue trials that a coordinator has to return to the queue."""
    waits_for: str | None = None
    """Process that the study waits for: "a worker" or "a coordinator"; None if it waits for none."""
    advice: str | None = None
    """Command that starts the missing process."""
    predicted_epochs_per_second: float | None = None
    """Predicted throughput of the GPUs that train; None if any worker trains on a device without a prediction."""

    @property
    def done(self) -> bool:
        """Whether the study is done."""
        return self.state == StudyState.DONE

    @property
    def epochs_per_second(self) -> float:
        """Throughput of all lanes together."""
        return sum(trial.epochs_per_second for trial in self.running)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the study is done, at the present throughput; None if nothing is trained.

        A trial is expected to train as long as the finished ones did on average. A trial that has trained longer is
        expected to use its whole epoch budget. A limit on wall time bounds the estimate.
        """
        if self.done:
            return 0.0
        if not self.epochs_per_second:
            return None
        expected = self.epochs if self.epochs_trained is None else self.epochs_trained
        unstarted = self.n_trials - sum(self.counts.values()) + self.counts["waiting"]
        epochs_left = unstarted * expected + sum(
            (expected if trial.epoch < expected else self.epochs) - trial.epoch for trial in self.running
        )
        hours, limit = self.budget.get("wall_hours", (0.0, math.inf))
        return min(float(epochs_left / self.epochs_per_second), max(3600 * (limit - hours), 0.0))

    def to_json(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
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
            "configurations": [configuration.to_json() for configuration in self.configurations[:CONFIGURATIONS]],
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
            "predicted_epochs_per_second": self.predicted_epochs_per_second,
            "seconds_left": self.seconds_left,
        }


class StatusReader:
    """Reads the status of a study repeatedly. Not thread-safe.

    It caches the finished trials of a study with replicates, and reads only those that are new.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._finished: dict[int, FinishedTrial] = {}

    def read(self, pruned: int | None = LAST_PRUNED) -> Status:
        """Read the status of the study as it is now.

        Args:
            pruned: Number of pruned trials to read, the last ones; None reads all.

        Raises:
            StudyDeletedError: The study was deleted.
        """
        study = self._study
        study.refresh()
        counts = study.counts()
        n_trials = sum(counts.values())
        budget, limit = _read_budget(study)
        done = is_done(study.spec, study.selection, counts, is_budget_exhausted=limit is not None)
        best_trials = read_best_trials(study, BEST_TRIALS)
        with study.store.reading() as reader:
            running, is_trained = reader.read_running_trials()
            abandoned = reader.find_abandoned()
            last_pruned = reader.read_pruned_trials(pruned) if counts[TrialState.PRUNED] else []
            epochs_trained = reader.mean_epochs_trained()
        missing = None
        if not (done or study.paused or is_trained):
            missing = missing_process(counts, is_selecting=study.awaits_selection, is_abandoned=bool(abandoned))
        is_admitted = study.version_mismatch is None
        return Status(
            study=study.name,
            state=study_state(done=done, paused=study.paused, missing=missing, is_admitted=is_admitted),
            counts=counts_by_name(counts),
            n_trials=expected_trials(study.spec, study.selection, n_trials),
            epochs=study.spec.experiment.epochs,
            running=running,
            best=best_trials[0] if best_trials and best_trials[0].state == TrialState.COMPLETE else None,
            budget=budget,
            exhausted_limit=limit,
            paused=study.paused,
            version_mismatch=study.version_mismatch,
            best_trials=best_trials,
            pruned=last_pruned,
            epochs_trained=epochs_trained,
            configurations=self.rank_configurations() if study.spec.replicates.count > 1 else [],
            abandoned=abandoned,
            waits_for=missing,
            advice=_advice(study, missing, abandoned),
            predicted_epochs_per_second=predict_throughput(study.spec, running, best_trials),
        )

    def rank_configurations(self, by: str = MEDIAN) -> list[SeedStats]:
        """Read the configurations over their seeds, best first; see `replicates.rank_configurations`."""
        study = self._study
        self._finished = study.store.read_finished_trials(self._finished)
        trials = sorted(self._finished.values(), key=lambda trial: trial.number)
        return rank_configurations(trials, study.spec.replicates.count, by)


def read_status(study: Study, pruned: int | None = None) -> Status:
    """Read the status of the study as it is now; see `StatusReader.read`."""
    return StatusReader(study).read(pruned)


def _advice(study: Study, missing: str | None, abandoned: list[AbandonedTrial]) -> str | None:
    if missing is None and not abandoned:
        return None
    command = "work" if missing == A_WORKER and not abandoned else "coordinate"
    return hint(command, "--study", study.name, database=study.database)


def _read_budget(study: Study) -> tuple[dict[str, tuple[float, float]], str | None]:
    """Return `Status.budget` and `Status.exhausted_limit`."""
    budget = study.spec.budget
    if not budget.has_limits:
        return {}, None
    usage = study.store.read_usage()
    used = {
        "solved": usage.solved,
        "device_hours": usage.device_seconds / 3600,
        "wall_hours": usage.wall_seconds / 3600,
    }
    limits = {name: getattr(budget, name) for name in used}
    shown = {name: (used[name], limit) for name, limit in limits.items() if limit is not None}
    return shown, exhausted_limit(budget, usage)
