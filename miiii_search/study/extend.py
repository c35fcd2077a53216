"""Extending a study: more trials, a larger search space, more replicates, a larger budget.

An extension only adds to a study. Trained trials stay as they are, and no trial changes its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import TrialState

from miiii_search.config.overrides import apply_settings, describe_differences, to_tree
from miiii_search.config.search_space import Point, Range
from miiii_search.config.study_sections import Replicates
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.study_attrs import SELECTED_KEY, SPEC_KEY
from miiii_search.storage.study_transaction import StudyTransaction
from miiii_search.study.points import exclude_existing
from miiii_search.study.state import expected_trials
from miiii_search.study.stored_spec import parse_spec, write_spec
from miiii_search.study.study import Study
from miiii_search.study.trials import distributions, insert_trials

EXTENDED = ("space", "budget", "replicates")
"""Sections of a specification that may grow. One grid sampler may also replace the other: their trials are the same."""


@dataclass(frozen=True)
class ExtensionResult:
    """Result of extending a study."""

    queued: int
    """Number of trials that were added to the queue. A sampler adds its trials later."""
    n_trials: int
    """Number of trials that the study has when it is done. An upper bound if the best configurations still have to be
    selected for further seeds."""
    changed: bool
    """Whether the settings changed the specification."""


def extend(study: Study, settings: Sequence[str]) -> ExtensionResult:
    """Apply settings that add to the study's specification, and queue the new points.

    This is one transaction under the study's lock. Workers see all of the extension or nothing, and repeated or
    concurrent calls add no point twice.

    Args:
        study: The study.
        settings: Settings of the form `key=value`.

    Raises:
        StudyDeletedError: The study was deleted.
        MiiiiSearchError: A setting removes something, changes the problem, or has no effect.
    """
    with study.store.transaction() as tx:
        tx.lock()
        found = tx.read_attributes(SPEC_KEY, SELECTED_KEY)
        stored = parse_spec(found[SPEC_KEY])
        wanted = apply_settings(StudySpec, to_tree(stored), settings)
        n_trials = sum(tx.count_trials().values())
        _check(stored, wanted, max(expected_trials(stored, found.get(SELECTED_KEY), n_trials), n_trials))
        changed, queued = stored != wanted, 0
        if changed:
            missing, trials = list[tuple[Point, int]](), wanted.budget.trials
            if wanted.is_grid_search:
                missing = exclude_existing(wanted.full_queue(), tx.read_points())
            points = missing if trials is None else missing[: max(trials - n_trials, 0)]
            _rewrite_distributions(tx, stored, wanted)
            if points:
                insert_trials(tx, wanted, points, TrialState.WAITING)
            queued = len(points)
            _check_effect(stored, wanted, n_trials, queued)
            write_spec(tx, wanted)
            if _asks_for_trials(stored, wanted):
                # The best configurations are selected again once all first replicates have ended.
                tx.remove_attributes([SELECTED_KEY])
    study.refresh()
    return ExtensionResult(queued, wanted.n_trials, changed)


def _check(stored: StudySpec, wanted: StudySpec, has: int) -> None:
    """Check that a specification only adds to a study.

    Args:
        stored: The study's specification.
        wanted: The new specification.
        has: Number of trials that the study has or, if larger, will have.

    Raises:
        MiiiiSearchError: The new specification removes or changes something.
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
    """Return whether the difference can add trials."""
    old, new = ((spec.space, spec.replicates, spec.budget.trials) for spec in (stored, wanted))
    return old != new


def _check_effect(stored: StudySpec, wanted: StudySpec, n_trials: int, queued: int) -> None:
    """Check that settings that ask for trials add some.

    Raises:
        MiiiiSearchError: They add none.
    """
    if not _asks_for_trials(stored, wanted) or queued or wanted.n_trials > n_trials:
        return
    if not wanted.is_grid_search and stored.space != wanted.space:
        return
    if wanted.replicates.top is not None and stored.replicates != wanted.replicates and wanted.budget.trials is None:
        return  # the selection decides later which trials are added
    if wanted.budget.trials == n_trials:
        raise MiiiiSearchError(f"budget.trials is {n_trials}, as many as there are: raise it too, with --trials N")
    raise MiiiiSearchError(
        f"the whole space is in the study with its {n_trials} trials: add values with --set 'space.NAME=[…]', "
        "or runs of the same points with --set replicates=N"
    )


def _rewrite_distributions(tx: StudyTransaction, stored: StudySpec, wanted: StudySpec) -> None:
    """Replace the distributions of existing trials: Optuna requires the same choices for all trials of a study.

    This also changes finished trials, which readers cache. So the study gets a new revision.
    """
    new = distributions(wanted)
    for name, old in distributions(stored).items():
        # Compared as text, since 0 and 0.0 are equal but differ in Optuna's storage.
        if distribution_to_json(old) != distribution_to_json(new[name]):
            tx.renew_revision()
            tx.rewrite_distribution(name, old, new[name])
