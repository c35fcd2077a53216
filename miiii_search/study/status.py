"""Where a study stands: counts, the best so far, who trains what, how fast, and how long it will take.

What is shown is read, and not all of the study: counts are aggregates of the database, and of the trials only the few
that a view has room for are read whole. A view of a study of 10,000 trials is refreshed every two seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.storage import schema
from miiii_search.study.hints import hint
from miiii_search.study.points import points_of
from miiii_search.study.replicates import MEDIAN, Ended, SeedStats, standings
from miiii_search.study.study import Study, expected_trials, has_all_trials
from miiii_search.trial_queue.budget import exhausted_limit, read_usage
from miiii_search.trial_queue.leases import AbandonedTrial, find_abandoned

CONFIGURATIONS = 20
"""Configurations that `status --json` lists of a study with replicates."""

LEADERS = 5
"""Ended trials that a view lists, the best ones."""

LANES = 16
"""Running trials whose parameters and curves are read, the first ones."""

LAST_PRUNED = 3
"""Pruned trials that a view lists, the last ones."""

AT_ONCE = 500
"""Trials asked for in one statement."""

A_WORKER, A_COORDINATOR = "a worker", "a coordinator"
"""Who a study can wait for."""


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
    """Validation accuracy at each rung so far; empty beyond the first `LANES` trials."""
    params: dict[str, Any]
    """Empty beyond the first `LANES` trials."""


@dataclass(frozen=True)
class Pruned:
    """A trial that was given up."""

    number: int
    epoch: int | None
    reason: str | None


@dataclass(frozen=True)
class Status:
    """A study at one moment."""

    study: str
    counts: dict[str, int]
    n_trials: int
    epochs: int
    running: list[Running]
    best: FrozenTrial | None
    done: bool
    budget: dict[str, tuple[float, float]]
    """What of each limit of the budget is used, and how much it is; not of the trials."""
    spent: str | None
    """Which limit ended the study, or is about to, in words."""
    paused: bool = False
    leaders: list[FrozenTrial] = field(default_factory=list)
    """The best of the trials that have ended, `LEADERS` at most."""
    pruned: list[Pruned] = field(default_factory=list)
    """The trials that were given up, in that order: all of them, or the last ones."""
    epochs_trained: float | None = None
    """The mean of the trials that have ended; None before the first."""
    mismatch: str | None = None
    """Why workers of this version do not train the study, if they do not."""
    standings: list[SeedStats] = field(default_factory=list)
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
            "configurations": [standing.to_json() for standing in self.standings[:CONFIGURATIONS]],
            "done": self.done,
            "paused": self.paused,
            "waits_for": self.waits_for,
            "advice": self.advice,
            "waits": self.mismatch,
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
        self._ended: dict[int, Ended] = {}

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
        leaders = read_leaders(study, LEADERS)
        with study.database.engine.connect() as connection:
            running, served = _running(connection, study)
            abandoned = find_abandoned(connection, study.study_id)
            given_up = read_pruned(connection, study.study_id, pruned) if counts["pruned"] else []
            epochs_trained = _mean_epochs(connection, study.study_id)
        waits_for = None
        if not (done or study.paused or served):
            waits_for = who_is_missing(counts, is_selecting=study.awaits_selection, is_abandoned=bool(abandoned))
        seeds = study.spec.replicates.count
        return Status(
            study=study.name,
            counts={name: counts[name] for name in order},
            n_trials=expected_trials(study.spec, study.selection, total),
            epochs=study.spec.experiment.epochs,
            running=running,
            best=leaders[0] if leaders and leaders[0].state == TrialState.COMPLETE else None,
            done=done,
            budget=budget,
            spent=over,
            paused=study.paused,
            mismatch=study.mismatch,
            leaders=leaders,
            pruned=given_up,
            epochs_trained=epochs_trained,
            standings=self.standings() if seeds > 1 else [],
            abandoned=abandoned,
            waits_for=waits_for,
            advice=_advice(study, waits_for, abandoned),
        )

    def standings(self, by: str = MEDIAN) -> list[SeedStats]:
        """Reads the configurations over their seeds, best first; see `replicates.standings`."""
        study = self._study
        with study.database.engine.connect() as connection:
            self._ended = read_ended(connection, study.study_id, self._ended)
        trials = sorted(self._ended.values(), key=lambda trial: trial.number)
        return standings(trials, study.spec.replicates.count, by)


def read_status(study: Study, pruned: int | None = None) -> Status:
    """Reads the study as it is now; see `StatusReader.read`."""
    return StatusReader(study).read(pruned)


def _advice(study: Study, waits_for: str | None, abandoned: list[AbandonedTrial]) -> str | None:
    if waits_for is None and not abandoned:
        return None
    command = "work" if waits_for == A_WORKER and not abandoned else "coordinate"
    return hint(command, "--study", study.name, database=study.database)


def who_is_missing(counts: Mapping[str, int], *, is_selecting: bool, is_abandoned: bool) -> str | None:
    """Returns who a study waits for that is not done, not paused, and that no worker trains."""
    if counts["waiting"]:
        return A_WORKER
    if is_abandoned or (is_selecting and not counts["running"]):
        return A_COORDINATOR  # who takes trials back, and gives the best their further seeds
    return None if counts["running"] else A_WORKER


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


def best_trial(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """Returns the COMPLETE trial of the highest objective, the first one of several."""
    return next(iter(ranked([trial for trial in trials if trial.state == TrialState.COMPLETE])), None)


def ranked(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Ended trials, best first: complete ones by their objective, then pruned ones by theirs, then failed ones."""
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.FAIL: 2}
    ended = [trial for trial in trials if trial.state in order]
    return sorted(ended, key=lambda t: (order[t.state], -(t.value if t.value is not None else 0.0), t.number))


def read_leaders(study: Study, n: int, *, complete: bool = False) -> list[FrozenTrial]:
    """Reads the first `n` trials of `ranked`, or of the COMPLETE ones alone; no others.

    Raises `MiiiiSearchError` if somebody deleted the study.
    """
    trials, values = schema.trials, schema.trial_values
    states = [TrialState.COMPLETE] if complete else [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    kinds = schema.ValueType
    infinity = sa.case((values.c.value_type == kinds.INF_POS, 1), (values.c.value_type == kinds.INF_NEG, -1), else_=0)
    query = (
        sa.select(trials.c.trial_id)
        .outerjoin(values, sa.and_(values.c.trial_id == trials.c.trial_id, values.c.objective == 0))
        .where(trials.c.study_id == study.study_id, trials.c.state.in_(states))
        .order_by(
            sa.case(*((trials.c.state == state, place) for place, state in enumerate(states))),
            infinity.desc(),
            sa.func.coalesce(values.c.value, 0.0).desc(),
            trials.c.number,
        )
        .limit(n)
    )
    with study.database.engine.connect() as connection:
        ids = list(connection.execute(query).scalars())
    found = study.read(ids) if ids else {}
    return [found[trial_id] for trial_id in ids if trial_id in found]


def read_best(study: Study) -> FrozenTrial | None:
    """Reads `best_trial` of the study as it is now, and no other trial."""
    return next(iter(read_leaders(study, 1, complete=True)), None)


def read_varied(study: Study) -> list[str]:
    """Reads which names of the space have more than one value in the trials that have ended."""
    trials, params = schema.trials, schema.trial_params
    ended = sa.select(trials.c.trial_id).where(
        trials.c.study_id == study.study_id,
        trials.c.state.in_([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]),
    )
    query = (
        sa.select(
            params.c.param_name,
            sa.func.count(sa.distinct(params.c.param_value)).label("values"),
            sa.func.count().label("trials"),
        )
        .where(params.c.trial_id.in_(ended))
        .group_by(params.c.param_name)
    )
    with study.database.engine.connect() as connection:
        n = connection.execute(sa.select(sa.func.count()).select_from(ended.subquery())).scalar_one()
        found = {row.param_name: row.values + (row.trials < n) for row in connection.execute(query)}
    return [name for name in study.spec.space if found.get(name, 0) > 1]


def read_pruned(connection: sa.Connection, study_id: int, last: int | None = None) -> list[Pruned]:
    """Reads the trials that were given up, in the order in which they were: all of them, or the `last` ones."""
    trials, attributes = schema.trials, schema.trial_user_attributes
    epoch, reason = attributes.alias("epoch"), attributes.alias("reason")
    query = (
        sa.select(trials.c.number, epoch.c.value_json.label("epoch"), reason.c.value_json.label("reason"))
        .outerjoin(epoch, sa.and_(epoch.c.trial_id == trials.c.trial_id, epoch.c.key == "epochs_trained"))
        .outerjoin(reason, sa.and_(reason.c.trial_id == trials.c.trial_id, reason.c.key == "reason"))
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.PRUNED)
        .order_by(
            trials.c.datetime_complete.is_(None).desc(), trials.c.datetime_complete.desc(), trials.c.number.desc()
        )
        .limit(last)
    )
    rows = connection.execute(query).all()
    return [Pruned(row.number, json.loads(row.epoch or "null"), json.loads(row.reason or "null")) for row in rows[::-1]]


def read_ended(connection: sa.Connection, study_id: int, known: dict[int, Ended]) -> dict[int, Ended]:
    """Reads the ended trials as they are compared, by their ids; takes from `known` those that it holds."""
    trials, values, attributes = schema.trials, schema.trial_values, schema.trial_user_attributes
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    query = (
        sa.select(
            trials.c.trial_id,
            trials.c.number,
            trials.c.state,
            values.c.value,
            values.c.value_type,
            attributes.c.value_json,
        )
        .outerjoin(values, sa.and_(values.c.trial_id == trials.c.trial_id, values.c.objective == 0))
        .outerjoin(
            attributes,
            sa.and_(attributes.c.trial_id == trials.c.trial_id, attributes.c.key == "epochs_to_solve"),
        )
        .where(trials.c.study_id == study_id, trials.c.state.in_(states))
    )
    ids = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.state.in_(states))
    there = set(connection.execute(ids).scalars())
    new = there - known.keys()
    kept = {trial_id: trial for trial_id, trial in known.items() if trial_id in there}
    if not new:
        return kept
    # All at once when many are new, as at the first look; otherwise a few of them.
    chosen = query if len(new) > AT_ONCE else query.where(trials.c.trial_id.in_(new))
    rows = [row for row in connection.execute(chosen) if row.trial_id in new]
    points = points_of(connection, [row.trial_id for row in rows])
    read = {
        row.trial_id: Ended(
            row.trial_id,
            row.number,
            row.state,
            None if row.value_type is None else schema.from_stored_value(row.value, row.value_type),
            points.get(row.trial_id, {}),
            json.loads(row.value_json or "null"),
        )
        for row in rows
    }
    return {**kept, **read}


def _mean_epochs(connection: sa.Connection, study_id: int) -> float | None:
    """The mean of the epochs that trials were trained for, of those that tell."""
    trials, attributes = schema.trials, schema.trial_user_attributes
    epochs = sa.cast(attributes.c.value_json, sa.Float)
    query = (
        sa.select(sa.func.sum(epochs).label("sum"), sa.func.count().label("n"))
        .select_from(trials.join(attributes, attributes.c.trial_id == trials.c.trial_id))
        .where(trials.c.study_id == study_id, attributes.c.key == "epochs_trained", attributes.c.value_json != "null")
    )
    row = connection.execute(query).one()
    return row.sum / row.n if row.n else None


def _running(connection: sa.Connection, study: Study) -> tuple[list[Running], bool]:
    """The running trials that are leased, by number, and whether a worker still renews one of the leases."""
    leases, trials = schema.leases, schema.trials
    clock = schema.now(connection)
    query = (
        sa.select(
            leases,
            trials.c.number,
            (clock - leases.c.renewed_at).label("silent"),
            (leases.c.expires_at > clock).label("is_held"),
        )
        .join(trials, trials.c.trial_id == leases.c.trial_id)
        .where(leases.c.study_id == study.study_id, trials.c.state == TrialState.RUNNING)
        .order_by(trials.c.number)
    )
    rows = connection.execute(query).all()
    shown = study.read([row.trial_id for row in rows[:LANES]]) if rows else {}
    running = []
    for row in rows:
        trial = shown.get(row.trial_id)
        reports = trial.intermediate_values if trial else {}
        running.append(
            Running(
                number=row.number,
                worker=row.worker,
                epoch=row.epoch,
                epochs_per_second=row.epochs_per_second,
                silent_seconds=max(row.silent, 0.0),
                saved_epoch=row.saved_epoch,
                curve=tuple(reports[epoch] for epoch in sorted(reports)),
                params=trial.params if trial else {},
            )
        )
    return running, any(row.is_held for row in rows)
