"""Extending a study: more trials of its space, a larger space, more replicates, a larger budget.

Only added to: what was trained stays what it is, and a trial never changes its point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.trial import TrialState

from miiii_search.config.overrides import apply_settings, describe_differences, to_tree
from miiii_search.config.search_space import Point, Range
from miiii_search.config.study_sections import Replicates
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.revisions import renew_revision
from miiii_search.storage.study_attrs import SELECTED_KEY, SPEC_KEY
from miiii_search.study.points import exclude_existing, read_points
from miiii_search.study.state import expected_trials
from miiii_search.study.stored_spec import parse_spec, write_spec
from miiii_search.study.study import Study
from miiii_search.study.trials import distributions, insert_trials
from miiii_search.trial_queue.counts import count_trials

EXTENDED = ("space", "budget", "replicates")
"""The parts of a spec that may grow. One queue may become the other, too: their trials are the same."""


@dataclass(frozen=True)
class ExtensionResult:
    """What became of a study."""

    queued: int
    """Trials that are new in the queue; a sampler adds its own as it goes on."""
    n_trials: int
    """That the study has when it is done; at most so many where the best are yet to be given further seeds."""
    changed: bool
    """Whether there was anything to do."""


def extend(study: Study, settings: Sequence[str]) -> ExtensionResult:
    """Applies `key=value` settings that add to the study's spec, and queues the points that no trial has.

    One transaction, under the study's lock: workers see all of it or nothing, and called twice, or by two at once, it
    adds no point twice. Raises `MiiiiSearchError` for a setting that takes something away or changes the problem.
    """
    with study.database.transaction() as connection:
        study.lock(connection)
        found = study_attrs.read(connection, study.study_id, SPEC_KEY, SELECTED_KEY)
        stored = parse_spec(found[SPEC_KEY])
        wanted = apply_settings(StudySpec, to_tree(stored), settings)
        n_trials = sum(count_trials(connection, study.study_id).values())
        _check(stored, wanted, max(expected_trials(stored, found.get(SELECTED_KEY), n_trials), n_trials))
        changed, queued = stored != wanted, 0
        if changed:
            missing, trials = list[tuple[Point, int]](), wanted.budget.trials
            if wanted.is_grid_search:
                missing = exclude_existing(wanted.full_queue(), read_points(connection, study.study_id))
            points = missing if trials is None else missing[: max(trials - n_trials, 0)]
            _rewrite_distributions(connection, study.study_id, stored, wanted)
            if points:
                insert_trials(connection, study.study_id, wanted, points, TrialState.WAITING)
            queued = len(points)
            _check_effect(stored, wanted, n_trials, queued)
            write_spec(connection, study.study_id, wanted)
            if _asks_for_trials(stored, wanted):
                # Who is among the best is to be seen again, once all have had their first run.
                study_attrs.remove(connection, study.study_id, [SELECTED_KEY])
    study.refresh()
    return ExtensionResult(queued, wanted.n_trials, changed)


def _check(stored: StudySpec, wanted: StudySpec, has: int) -> None:
    """Raises `MiiiiSearchError` if the wanted spec does more than to add to a study that has, or will have,
    so many trials.
    """
    may_change = (*EXTENDED, "sampler") if stored.is_grid_search and wanted.is_grid_search else EXTENDED
    others = [phrase for phrase in describe_differences(stored, wanted) if not phrase.startswith(may_change)]
    if others:
        raise MiiiiSearchError(
            f"extend adds to {', '.join(may_change)} only, but {others[0]}: create another study for that"
        )
    if stored.space.keys() != wanted.space.keys():
        changed = ", ".join(sorted(stored.space.keys() ^ wanted.space.keys()))
        raise MiiiiSearchError(f"extend adds values, not dimensions such as {changed}: create another study for that")
    for name, dimension in stored.space.items():
        _check_dimension(name, dimension, wanted.space[name])
    _check_replicates(stored.replicates, wanted.replicates)
    for limit in ("solved", "device_hours", "wall_hours"):
        old, new = getattr(stored.budget, limit), getattr(wanted.budget, limit)
        if old != new and (old is None or new is None or new < old):
            raise MiiiiSearchError(
                f"budget.{limit} is {old or 'unset'}, so that {new} would take away; extend only adds"
            )
    trials = wanted.budget.trials
    if trials is not None and trials != stored.budget.trials and trials < has:
        raise MiiiiSearchError(
            f"study has {has} trials already, so that --trials {trials} would take some away; ask for more"
        )


def _check_replicates(old: Replicates, new: Replicates) -> None:
    if new.count < old.count:
        raise MiiiiSearchError(f"replicates.count is {old.count} and can only grow, not become {new.count}")
    if new.top is None or old == new:
        return
    if old.top is None and old.count > 1:
        raise MiiiiSearchError(
            f"every configuration has {old.count} seeds, which replicates.top = {new.top} would take away; leave it out"
        )
    if old.top is not None and new.top < old.top:
        raise MiiiiSearchError(f"replicates.top is {old.top} and can only grow, not become {new.top}")


def _check_dimension(name: str, old: tuple[Any, ...] | Range, new: tuple[Any, ...] | Range) -> None:
    if isinstance(old, Range) or isinstance(new, Range):
        grows = isinstance(old, Range) and isinstance(new, Range) and new.low <= old.low and new.high >= old.high
        if not grows or getattr(old, "log", None) != getattr(new, "log", None):
            raise MiiiiSearchError(f"space.{name} is {old!r} and must lie within the new one, which is {new!r}")
        return
    lost = [str(value) for value in old if value not in new]
    if lost:
        raise MiiiiSearchError(
            f"space.{name} would lose {', '.join(lost)}; extend only adds: give the old values and new ones"
        )


def _asks_for_trials(stored: StudySpec, wanted: StudySpec) -> bool:
    """Whether trials may come of the difference."""
    old, new = ((spec.space, spec.replicates, spec.budget.trials) for spec in (stored, wanted))
    return old != new


def _check_effect(stored: StudySpec, wanted: StudySpec, n_trials: int, queued: int) -> None:
    """Raises `MiiiiSearchError` if trials were asked for, and none came of it."""
    if not _asks_for_trials(stored, wanted) or queued or wanted.n_trials > n_trials:
        return
    if not wanted.is_grid_search and stored.space != wanted.space:
        return
    if wanted.replicates.top is not None and stored.replicates != wanted.replicates and wanted.budget.trials is None:
        return  # whose they are, and whether they are new, is seen later
    if wanted.budget.trials == n_trials:
        raise MiiiiSearchError(f"budget.trials is {n_trials}, as many as there are: raise it too, with --trials N")
    raise MiiiiSearchError(
        f"the whole space is in the study with its {n_trials} trials: add values with --set 'space.NAME=[…]', "
        "or runs of the same points with --set replicates=N"
    )


def _rewrite_distributions(connection: sa.Connection, study_id: int, stored: StudySpec, wanted: StudySpec) -> None:
    """Gives the trials that there are the larger space: Optuna wants one list of choices for all trials.

    FinishedTrial trials too, which readers hold for final: the study has another revision then.
    """
    trials, params = schema.trials, schema.trial_params
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    new = distributions(wanted)
    for name, old in distributions(stored).items():
        before, after = distribution_to_json(old), distribution_to_json(new[name])
        if before == after:  # as text: a list may become one of equal numbers, 0 and 0.0
            continue
        renew_revision(connection, study_id)
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
