"""Extending a study: more trials of its space, a larger space, more replicates, a larger budget.

Only added to: what was trained stays what it is, and a trial never changes its point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import TrialState

from miiii_search.errors import UserError
from miiii_search.search import attributes, tables
from miiii_search.search.attributes import SPEC_KEY
from miiii_search.search.settings import difference, to_tree, with_settings
from miiii_search.search.spec import Point, Range, StudySpec
from miiii_search.search.study import (
    REPLICATE_KEY,
    Study,
    distributions,
    insert_trials,
    parse_spec,
    write_spec,
)

EXTENDED = ("space", "budget", "replicates")
"""The parts of a spec that may grow."""

_decode = lru_cache(json_to_distribution)


@dataclass(frozen=True)
class Extension:
    """What became of a study."""

    queued: int
    """Trials that are new in the queue; a sampler adds its own as it goes on."""
    n_trials: int
    """That the study has when it is done."""
    changed: bool
    """Whether there was anything to do."""


def extend(study: Study, settings: Sequence[str]) -> Extension:
    """Applies `key=value` settings that add to the study's spec, and queues the points that no trial has.

    One transaction, under the study's lock: workers see all of it or nothing, and called twice, or by two at once, it
    adds no point twice. Raises `UserError` for a setting that takes something away or changes the problem.
    """
    with study.database.transaction() as connection:
        study.lock(connection)
        stored = parse_spec(attributes.read(connection, study.study_id, SPEC_KEY)[SPEC_KEY])
        wanted = with_settings(StudySpec, to_tree(stored), settings)
        n_trials = _count(connection, study.study_id)
        _check(stored, wanted, n_trials)
        changed, queued = stored != wanted, 0
        if changed:
            missing = _missing(connection, study.study_id, wanted) if wanted.sampler == "queue" else []
            points = missing[: max(wanted.n_trials - n_trials, 0)]
            _rewrite_distributions(connection, study.study_id, stored, wanted)
            if points:
                insert_trials(connection, study.study_id, wanted, points, TrialState.WAITING)
            queued = len(points)
            _check_effect(stored, wanted, n_trials, queued)
            write_spec(connection, study.study_id, wanted)
    study.refresh()
    return Extension(queued, wanted.n_trials, changed)


def _count(connection: sa.Connection, study_id: int) -> int:
    query = sa.select(sa.func.count()).select_from(tables.trials).where(tables.trials.c.study_id == study_id)
    return int(connection.execute(query).scalar_one())


def _check(stored: StudySpec, wanted: StudySpec, n_trials: int) -> None:
    """Raises `UserError` if the wanted spec does more than to add."""
    others = [phrase for phrase in difference(stored, wanted) if not phrase.startswith(EXTENDED)]
    if others:
        raise UserError(f"extend adds to {', '.join(EXTENDED)} only, but {others[0]}: create another study for that")
    if stored.space.keys() != wanted.space.keys():
        changed = ", ".join(sorted(stored.space.keys() ^ wanted.space.keys()))
        raise UserError(f"extend adds values, not dimensions such as {changed}: create another study for that")
    for name, dimension in stored.space.items():
        _check_dimension(name, dimension, wanted.space[name])
    if wanted.replicates < stored.replicates:
        raise UserError(f"replicates is {stored.replicates} and can only grow, not become {wanted.replicates}")
    for limit in ("solved", "device_hours", "wall_hours"):
        old, new = getattr(stored.budget, limit), getattr(wanted.budget, limit)
        if old != new and (old is None or new is None or new < old):
            raise UserError(f"budget.{limit} is {old or 'unset'}, so that {new} would take away; extend only adds")
    trials = wanted.budget.trials
    if trials is not None and trials != stored.budget.trials and trials < max(stored.n_trials, n_trials):
        has = max(stored.n_trials, n_trials)
        raise UserError(f"study has {has} trials already, so that --trials {trials} would take some away; ask for more")


def _check_dimension(name: str, old: tuple[Any, ...] | Range, new: tuple[Any, ...] | Range) -> None:
    if isinstance(old, Range) or isinstance(new, Range):
        grows = isinstance(old, Range) and isinstance(new, Range) and new.low <= old.low and new.high >= old.high
        if not grows or getattr(old, "log", None) != getattr(new, "log", None):
            raise UserError(f"space.{name} is {old!r} and must lie within the new one, which is {new!r}")
        return
    lost = [str(value) for value in old if value not in new]
    if lost:
        raise UserError(
            f"space.{name} would lose {', '.join(lost)}; extend only adds: give the old values and new ones"
        )


def _check_effect(stored: StudySpec, wanted: StudySpec, n_trials: int, queued: int) -> None:
    """Raises `UserError` if trials were asked for, and none came of it."""
    more = (stored.space, stored.replicates, stored.budget.trials) != (
        wanted.space,
        wanted.replicates,
        wanted.budget.trials,
    )
    if not more or queued or wanted.n_trials > n_trials or (wanted.sampler != "queue" and stored.space != wanted.space):
        return
    if wanted.budget.trials == n_trials:
        raise UserError(f"budget.trials is {n_trials}, as many as there are: raise it too, with --trials N")
    raise UserError(
        f"the whole space is in the study with its {n_trials} trials: add values with --set 'space.NAME=[…]', "
        "or runs of the same points with --set replicates=N"
    )


def _missing(connection: sa.Connection, study_id: int, spec: StudySpec) -> list[tuple[Point, int]]:
    """What the spec's grid has and no trial, in the order of the queue."""
    trials, params, known = tables.trials, tables.trial_params, tables.trial_system_attributes
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    points: dict[int, Point] = {}
    for row in connection.execute(sa.select(params).where(params.c.trial_id.in_(of_study))):
        value = _decode(row.distribution_json).to_external_repr(row.param_value)
        points.setdefault(row.trial_id, {})[row.param_name] = value
    query = sa.select(known.c.trial_id, known.c.value_json).where(
        known.c.key == REPLICATE_KEY, known.c.trial_id.in_(of_study)
    )
    replicates = {row.trial_id: int(row.value_json) for row in connection.execute(query)}
    visited = {_identity(point, replicates.get(trial_id, 0)) for trial_id, point in points.items()}
    return [(point, replicate) for point, replicate in spec.order() if _identity(point, replicate) not in visited]


def _identity(point: Point, replicate: int) -> tuple[Any, ...]:
    return (tuple(sorted(point.items())), replicate)


def _rewrite_distributions(connection: sa.Connection, study_id: int, stored: StudySpec, wanted: StudySpec) -> None:
    """Gives the trials that there are the larger space: Optuna wants one list of choices for all trials."""
    trials, params = tables.trials, tables.trial_params
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    new = distributions(wanted)
    for name, old in distributions(stored).items():
        before, after = distribution_to_json(old), distribution_to_json(new[name])
        if before == after:  # as text: a list may become one of equal numbers, 0 and 0.0
            continue
        connection.execute(
            sa.update(params)
            .where(params.c.trial_id.in_(of_study), params.c.param_name == name)
            .where(params.c.distribution_json == before)
            .values(distribution_json=after, param_value=_moved(params, old, new[name]))
        )


def _moved(params: Any, old: BaseDistribution, new: BaseDistribution) -> Any:
    """What Optuna writes for the same value: of a list, the place in it."""
    if not isinstance(old, CategoricalDistribution) or not isinstance(new, CategoricalDistribution):
        return params.c.param_value
    places = {float(place): float(new.choices.index(value)) for place, value in enumerate(old.choices)}
    return sa.case(places, value=params.c.param_value, else_=params.c.param_value)
