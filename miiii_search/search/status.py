"""Where a study stands: counts, the best so far, who trains what, how fast, and how long it will take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.search import tables
from miiii_search.search.budget import read_usage, spent
from miiii_search.search.replicates import Standing, standings
from miiii_search.search.study import Study, expected_trials, has_all_trials

CONFIGURATIONS = 20
"""That `status --json` lists of a study with replicates."""


@dataclass(frozen=True)
class Running:
    """A trial in some worker's lane."""

    number: int
    worker: str
    epoch: int
    epochs_per_second: float
    silent_seconds: float
    """Since its lease was last renewed, by the database's clock."""
    saved_epoch: int
    """Of its last checkpoint, 0 before the first."""
    curve: tuple[float, ...]
    """Validation accuracy at each rung so far."""
    params: dict[str, Any]


@dataclass(frozen=True)
class Status:
    """A study at one moment."""

    study: str
    counts: dict[str, int]
    n_trials: int
    epochs: int
    trials: list[FrozenTrial]
    running: list[Running]
    best: FrozenTrial | None
    done: bool
    budget: dict[str, tuple[float, float]]
    """What of each limit of the budget is used, and how much it is; not of the trials."""
    spent: str | None
    """Which limit ended the study, or is about to, in words."""
    paused: bool = False
    mismatch: str | None = None
    """Why workers of this version do not train the study, if they do not."""
    standings: list[Standing] = field(default_factory=list)
    """The configurations over their seeds, best first; none where each has one seed."""

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
        trained = [t.user_attrs["epochs_trained"] for t in self.trials if "epochs_trained" in t.user_attrs]
        expected = sum(trained) / len(trained) if trained else self.epochs
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
            "configurations": [standing.to_json() for standing in self.standings[:CONFIGURATIONS]],
            "done": self.done,
            "paused": self.paused,
            "waits": self.mismatch,
            "budget": {name: {"used": round(used, 4), "limit": limit} for name, (used, limit) in self.budget.items()},
            "pruned": [
                {
                    "number": trial.number,
                    "epoch": trial.user_attrs.get("epochs_trained"),
                    "reason": trial.user_attrs.get("reason"),
                }
                for trial in pruned(self.trials)
            ],
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
            "epochs_per_second": round(self.epochs_per_second, 2),
            "seconds_left": self.seconds_left,
        }


def read_status(study: Study) -> Status:
    """Reads the study as it is now."""
    study.refresh()
    trials = study.trials()
    counts = {state.name.lower(): sum(t.state == state for t in trials) for state in TrialState}
    order = ("waiting", "running", "complete", "pruned", "fail")
    budget, over = _read_budget(study)
    ended = not counts["waiting"] and has_all_trials(study.spec, study.selection, len(trials))
    return Status(
        study=study.name,
        counts={name: counts[name] for name in order},
        n_trials=expected_trials(study.spec, study.selection, len(trials)),
        epochs=study.spec.experiment.epochs,
        trials=trials,
        running=_running(study, {trial._trial_id: trial for trial in trials}),
        best=best_trial(trials),
        done=not counts["running"] and (ended or over is not None),
        paused=study.paused,
        mismatch=study.mismatch,
        budget=budget,
        spent=over,
        standings=standings(trials, seeds) if (seeds := study.spec.replicates.count) > 1 else [],
    )


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
    return {name: (used[name], limit) for name, limit in known.items() if limit is not None}, spent(limits, usage)


def best_trial(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The COMPLETE trial of the highest objective, the first one of several."""
    return next(iter(ranked([trial for trial in trials if trial.state == TrialState.COMPLETE])), None)


def pruned(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Those that were given up, in the order in which they were."""
    given_up = [trial for trial in trials if trial.state == TrialState.PRUNED]
    return sorted(given_up, key=lambda trial: (str(trial.datetime_complete), trial.number))


def read_best(study: Study) -> FrozenTrial | None:
    """`best_trial` of the study as it is now; reads no other trial."""
    trials, values = tables.trials, tables.trial_values
    query = (
        sa.select(trials.c.trial_id)
        .join(values, values.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study.study_id, trials.c.state == TrialState.COMPLETE)
        .order_by(values.c.value.desc(), trials.c.number)
        .limit(1)
    )
    with study.database.engine.connect() as connection:
        best = connection.execute(query).scalar_one_or_none()
    return None if best is None else study.read([best])[best]


def ranked(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Ended trials, best first: complete ones by their objective, then pruned ones by theirs, then failed ones."""
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.FAIL: 2}
    ended = [trial for trial in trials if trial.state in order]
    return sorted(ended, key=lambda t: (order[t.state], -(t.value if t.value is not None else 0.0), t.number))


def _running(study: Study, trials: dict[int, FrozenTrial]) -> list[Running]:
    with study.database.engine.connect() as connection:
        query = sa.select(tables.leases, (tables.now(connection) - tables.leases.c.renewed_at).label("silent")).where(
            tables.leases.c.study_id == study.study_id
        )
        rows = connection.execute(query).all()
    running = []
    for row in rows:
        trial = trials.get(row.trial_id)
        # Trials and leases are read one after the other: a trial may have come or gone in between.
        if trial is not None and trial.state == TrialState.RUNNING:
            reports = trial.intermediate_values
            running.append(
                Running(
                    number=trial.number,
                    worker=row.worker,
                    epoch=row.epoch,
                    epochs_per_second=row.epochs_per_second,
                    silent_seconds=max(row.silent, 0.0),
                    saved_epoch=row.saved_epoch,
                    curve=tuple(reports[epoch] for epoch in sorted(reports)),
                    params=trial.params,
                )
            )
    return sorted(running, key=lambda trial: trial.number)
