"""Samplers other than the queue: Optuna's, by name, with what was tried already refused."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.search import tables
from miiii_search.search.leases import Lease, grant, utc_now
from miiii_search.search.spec import Point
from miiii_search.search.study import Study, distributions, insert_trials

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    # constant_liar: a running trial counts as a bad one, so that workers spread out.
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}

REDRAWS = 20
"""How often a sampler is asked again before a random point not yet visited is taken instead."""


class SampledQueue:
    """New trials of a study whose sampler is not the queue. One a worker; not for several threads."""

    def __init__(self, study: Study, seed: int) -> None:
        self._study = study
        self._sampler = SAMPLERS[study.spec.sampler](seed)
        self._random = random.Random(seed)
        self._distributions = distributions(study.spec)

    def claim(self, worker: str, seconds: float) -> Lease | None:
        """A new trial at a point that no trial has, RUNNING and leased; None once the budget is spent.

        The sampler is asked on a copy of the study in memory, so that a point that is refused leaves no row.
        Two workers that draw the same point at once: the second draws again.
        """
        for _ in range(REDRAWS):
            trials = self._study.trials()
            if len(trials) >= self._study.spec.n_trials:
                return None
            visited = {_identity(trial.params) for trial in trials}
            point = self._draw(trials, visited)
            lease = self._insert(point, worker, seconds, expected=len(trials))
            if lease is not None:
                return lease
        return None

    def _draw(self, trials: list[FrozenTrial], visited: set[str]) -> Point:
        mirror = optuna.create_study(sampler=self._sampler, direction="maximize")
        mirror.add_trials([_as_known(trial) for trial in trials])
        for _ in range(REDRAWS):
            point = dict(mirror.ask(self._distributions).params)
            if _identity(point) not in visited:
                return point
        spec = self._study.spec
        if spec.is_finite:
            return self._random.choice([point for point in spec.points() if _identity(point) not in visited])
        fallback = optuna.create_study(sampler=optuna.samplers.RandomSampler(self._random.randrange(2**31)))
        return dict(fallback.ask(self._distributions).params)

    def _insert(self, point: Point, worker: str, seconds: float, expected: int) -> Lease | None:
        """Writes the trial if the study still has as many trials as the sampler saw."""
        study = self._study
        with study.database.transaction() as connection:
            connection.execute(
                sa.select(tables.studies.c.study_id)
                .where(tables.studies.c.study_id == study.study_id)
                .with_for_update()
            )
            count = connection.execute(
                sa.select(sa.func.count()).select_from(tables.trials).where(tables.trials.c.study_id == study.study_id)
            ).scalar_one()
            if count != expected:
                return None
            [(trial_id, number)] = insert_trials(
                connection, study.study_id, study.spec, [(point, 0)], TrialState.RUNNING
            )
            connection.execute(
                sa.update(tables.trials).where(tables.trials.c.trial_id == trial_id).values(datetime_start=utc_now())
            )
            return grant(connection, study.study_id, trial_id, number, worker, seconds)


def _identity(params: dict[str, Any]) -> str:
    return repr(sorted(params.items()))


def _as_known(trial: FrozenTrial) -> FrozenTrial:
    """A trial as the sampler may see it: without our attributes, a waiting one as running, a FAIL without value."""
    state = TrialState.RUNNING if trial.state == TrialState.WAITING else trial.state
    reports = {step: value for step, value in trial.intermediate_values.items() if math.isfinite(value)}
    return FrozenTrial(
        number=trial.number,
        state=state,
        value=trial.value if state.is_finished() and state != TrialState.FAIL else None,
        datetime_start=trial.datetime_start or trial.datetime_complete or utc_now(),
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values=reports,
        trial_id=trial._trial_id,
    )
