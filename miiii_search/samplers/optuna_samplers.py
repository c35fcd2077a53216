"""Samplers other than the queue: Optuna's, by name, with what was tried already refused."""

from __future__ import annotations

import importlib.util
import math
import random
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.search_space import Point, PointKey, point_key
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.study_attrs import PAUSED_KEY, SPEC_KEY
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.study import Study
from miiii_search.study.trials import count_trials, distributions, insert_trials
from miiii_search.trial_queue.leases import Lease, grant, utc_now

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    # constant_liar: a running trial counts as a bad one, so that workers spread out.
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    # One unscrambled sequence for all workers: what another one has taken is drawn again.
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
}

NEEDED = {"gp": "torch"}
"""What a sampler needs that we do not bring."""

REDRAWS = 20
"""How often a sampler is asked again before a random point not yet visited is taken instead."""

LAST_REDRAWS = 1000
"""How many random points are drawn before a space of ranges counts as exhausted."""


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of this name. Raises `MiiiiSearchError` if what it needs is not installed."""
    needed = NEEDED.get(name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise MiiiiSearchError(
            f"sampler = '{name}' needs the package {needed}, which is not there; pip install {needed}"
        )
    with warnings.catch_warnings():
        # That an interface may change is no matter to the user: we say which version of Optuna we take.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](seed)


class PointSampler:
    """A sampler of Optuna's that is asked for points no trial has. Not for several threads."""

    def __init__(self, name: str, seed: int) -> None:
        self._sampler = make_sampler(name, seed)
        self._attributes: dict[str, Any] = {}
        self._random = random.Random(seed)

    def sample(self, spec: StudySpec, trials: Sequence[FrozenTrial], visited: Collection[PointKey]) -> Point:
        """A point whose `identity` is not among those visited, drawn in the light of the trials.

        The sampler is asked on a copy of the study in memory, so that a point that is refused leaves no row.
        Raises `MiiiiSearchError` if the space has no point left.
        """
        mirror = optuna.create_study(sampler=self._sampler, direction="maximize")
        mirror.add_trials([_as_known(trial) for trial in trials])
        storage, mirror_id = mirror._storage, mirror._study_id
        for key, value in self._attributes.items():
            storage.set_study_system_attr(mirror_id, key, value)
        space = distributions(spec)
        for _ in range(REDRAWS):
            point = dict(mirror.ask(space).params)
            # The sampler `qmc` keeps there how far it has come.
            self._attributes = storage.get_study_system_attrs(mirror_id)
            if _is_new(spec, point, visited):
                return point
        if spec.is_finite:
            return self._random.choice([point for point in spec.points() if point_key(point) not in visited])
        fallback = optuna.create_study(sampler=optuna.samplers.RandomSampler(self._random.randrange(2**31)))
        for _ in range(LAST_REDRAWS):
            point = dict(fallback.ask(space).params)
            if _is_new(spec, point, visited):
                return point
        raise MiiiiSearchError(
            f"the space has no point left to try after {len(trials)} trials, so the budget of "
            f"{spec.n_trials} cannot be spent; widen the space, or create a study with fewer trials"
        )


class TrialSampler:
    """New trials of a study whose sampler is not the queue. One a worker; not for several threads."""

    def __init__(self, study: Study, seed: int) -> None:
        self._study = study
        self._sampler = PointSampler(study.spec.sampler, seed)

    def create_trial(self, worker: str, seconds: float) -> Lease | None:
        """A new trial at a point that no trial has, RUNNING and leased; None once the budget is spent, or in a pause.

        Two workers that draw the same point at once: the second draws again. So does one whose space was extended
        meanwhile. Raises `MiiiiSearchError` if the study was deleted, or its space has no point left.
        """
        for _ in range(REDRAWS):
            self._study.refresh()
            trials = self._study.trials()
            if self._study.paused or len(trials) >= self._study.spec.n_trials:
                return None
            point = self._sample(trials)
            lease = self._insert(point, worker, seconds, expected=len(trials))
            if lease is not None:
                return lease
        return None

    def _sample(self, trials: list[FrozenTrial]) -> Point:
        return self._sampler.sample(self._study.spec, trials, {point_key(trial.params) for trial in trials})

    def _insert(self, point: Point, worker: str, seconds: float, expected: int) -> Lease | None:
        """Writes the trial if the study still has the spec and as many trials as the sampler saw."""
        study = self._study
        with study.database.transaction() as connection:
            study.lock(connection)
            count = count_trials(connection, study.study_id)
            found = study_attrs.read(connection, study.study_id, SPEC_KEY, PAUSED_KEY)
            if count != expected or PAUSED_KEY in found or parse_spec(found[SPEC_KEY]) != study.spec:
                return None
            [(trial_id, number)] = insert_trials(
                connection, study.study_id, study.spec, [(point, 0)], TrialState.RUNNING
            )
            connection.execute(
                sa.update(schema.trials).where(schema.trials.c.trial_id == trial_id).values(datetime_start=utc_now())
            )
            [lease] = grant(connection, study.study_id, [(trial_id, number)], worker, seconds)
            return lease


def _is_new(spec: StudySpec, point: Point, visited: Collection[PointKey]) -> bool:
    """Whether a point can be trained, as not every one between valid bounds can, and no trial has it."""
    if point_key(point) in visited:
        return False
    try:
        spec.run(point, 0)
    except ValueError:
        return False
    return True


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
