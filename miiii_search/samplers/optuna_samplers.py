"""Optuna's samplers by name. A point that a trial already has is drawn again."""

from __future__ import annotations

import importlib.util
import math
import random
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.conditional import used_part
from miiii_search.config.search_space import Point, PointKey, point_key
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.study.study import Study
from miiii_search.study.trials import distributions, new_trial
from miiii_search.trial_queue.leases import Lease, utc_now

OPTUNA_SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    # constant_liar: a running trial counts as a bad one, so that workers draw different points.
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    # All workers draw from the same unscrambled sequence, and draw again where another worker has the point.
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
}
"""Constructors of Optuna's samplers by name; each takes a seed."""

REQUIRED_PACKAGES = {"gp": "torch"}
"""Packages that a sampler needs and that this package does not install, by the name of the sampler."""

MAX_DRAWS = 20
"""Number of draws from a sampler, after which a random unvisited point is used instead."""

MAX_RANDOM_DRAWS = 1000
"""Number of random draws, after which a space of ranges counts as exhausted."""


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return a new sampler of Optuna's.

    Raises:
        MiiiiSearchError: If a package that the sampler needs is not installed.
    """
    package = REQUIRED_PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise MiiiiSearchError(
            f"sampler = '{name}' needs the package {package}, which is not installed: pip install {package}"
        )
    with warnings.catch_warnings():
        # pyproject.toml bounds Optuna's version, so a change of an experimental interface does not reach the user.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return OPTUNA_SAMPLERS[name](seed)


class PointSampler:
    """Draws points that no trial has from one of Optuna's samplers. Not thread-safe.

    Args:
        name: Name of the sampler.
        seed: Seed of the sampler.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._sampler = make_sampler(name, seed)
        self._attributes: dict[str, Any] = {}
        self._random = random.Random(seed)

    def sample(self, spec: StudySpec, trials: Sequence[FrozenTrial], visited: Collection[PointKey]) -> Point:
        """Return an unvisited point.

        The sampler works on a copy of the study in memory, so a rejected point leaves no row in the database.

        Args:
            spec: The study's specification, which defines the search space.
            trials: All trials of the study, from whose results the sampler learns.
            visited: Identities of the points that must not be drawn.

        Raises:
            MiiiiSearchError: If the space has no unvisited point.
        """
        study_copy = optuna.create_study(sampler=self._sampler, direction="maximize")
        study_copy.add_trials([_visible_trial(trial) for trial in trials])
        storage, copy_id = study_copy._storage, study_copy._study_id
        for key, value in self._attributes.items():
            storage.set_study_system_attr(copy_id, key, value)
        space, fixed = distributions(spec), spec.hyperparameters.model_dump()
        for _ in range(MAX_DRAWS):
            point = used_part(study_copy.ask(space).params, fixed)
            # The sampler `qmc` stores its position in the sequence there.
            self._attributes = storage.get_study_system_attrs(copy_id)
            if _is_new(spec, point, visited):
                return point
        if spec.is_finite:
            return self._random.choice([point for point in spec.points() if point_key(point) not in visited])
        fallback = optuna.create_study(sampler=optuna.samplers.RandomSampler(self._random.randrange(2**31)))
        for _ in range(MAX_RANDOM_DRAWS):
            point = used_part(fallback.ask(space).params, fixed)
            if _is_new(spec, point, visited):
                return point
        raise MiiiiSearchError(
            f"the space has no point left to try after {len(trials)} trials, so the budget of "
            f"{spec.n_trials} cannot be spent; widen the space, or create a study with fewer trials"
        )


class TrialSampler:
    """Creates the trials of a study that uses one of Optuna's samplers. One per worker; not thread-safe.

    Args:
        study: The study.
        seed: Seed of the sampler, which should differ between workers.
    """

    def __init__(self, study: Study, seed: int) -> None:
        self._study = study
        self._sampler = PointSampler(study.spec.sampler, seed)

    def create_trial(self, worker: str, seconds: float) -> Lease | None:
        """Create a running trial at an unvisited point, leased to a worker.

        If another worker adds a trial meanwhile, or the study is extended, the point is drawn again.

        Args:
            worker: Name of the worker.
            seconds: Duration of the lease.

        Returns:
            The lease; None if the budget is spent or the study is paused.

        Raises:
            MiiiiSearchError: If the study was deleted, or its space has no unvisited point.
        """
        for _ in range(MAX_DRAWS):
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
        """Insert the trial, unless the specification or the number of trials has changed since they were read."""
        study = self._study
        return study.queue.claim_new_trial(
            new_trial(study.spec, point, 0),
            distributions(study.spec),
            worker,
            seconds,
            n_trials=expected,
            attributes=study.attributes_at_refresh,
        )


def _is_new(spec: StudySpec, point: Point, visited: Collection[PointKey]) -> bool:
    """Return whether no trial has the point and it can be trained, which valid bounds of a range do not guarantee."""
    if point_key(point) in visited:
        return False
    try:
        spec.run_at(point, 0)
    except ValueError:
        return False
    return True


def _visible_trial(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy of a trial without attributes. A waiting trial counts as running; a failed one has no value."""
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
