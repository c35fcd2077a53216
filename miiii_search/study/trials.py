"""The trials of a study in its database: adding them, counting them, and the attributes that they carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from miiii_search.config.search_space import Point, Range, Value
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.spec import Hyperparameters
from miiii_search.experiment.switches import PAPER, Switches
from miiii_search.storage.records import NewTrial, TrialRef
from miiii_search.storage.study_transaction import StudyTransaction
from miiii_search.storage.trial_attrs import REPLICATE_KEY, SHAPE_KEY

STATES = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
"""States in the order in which they are shown."""
STATE_NAMES = tuple(state.name.lower() for state in STATES)
"""Names of the states as users see them, in the same order."""


def counts_by_name(counts: Mapping[TrialState, int]) -> dict[str, int]:
    """Return counts by the states' names, in the order of `STATE_NAMES`."""
    return {name: counts[state] for name, state in zip(STATE_NAMES, STATES, strict=True)}


def shape_of(d_model: int, n_heads: int, switches: Switches = PAPER) -> str:
    """Return the part of the hyperparameters that a compiled program depends on, as text; see `TrialQueue.claim`."""
    return f"d_model={d_model} n_heads={n_heads} {switches}".rstrip()


def distributions(spec: StudySpec) -> dict[str, BaseDistribution]:
    """Return the search space as Optuna's distributions.

    A list becomes a categorical distribution. A range becomes an integer or a float distribution, depending on the
    type of the hyperparameter.
    """
    return {name: _distribution(spec, name) for name in spec.space}


def new_trial(spec: StudySpec, point: Point, replicate: int) -> NewTrial:
    """Return the trial at a point of the search space, to be added to a study."""
    hyperparameters = spec.run_at(point, replicate)[1]
    shape = shape_of(hyperparameters.d_model, hyperparameters.n_heads, Switches.of(hyperparameters))
    return NewTrial(point, {SHAPE_KEY: shape, REPLICATE_KEY: replicate})


def insert_trials(
    tx: StudyTransaction, spec: StudySpec, points: Sequence[tuple[Point, int]], state: TrialState
) -> list[TrialRef]:
    """Add trials to a study, numbered after those that it has.

    Args:
        tx: A transaction that has locked the study.
        spec: The study's specification.
        points: Point of the search space and replicate of each trial.
        state: State of the new trials.

    Returns:
        The new trials, in the order of `points`.
    """
    trials = [new_trial(spec, point, replicate) for point, replicate in points]
    return tx.insert_trials(trials, distributions(spec), state)


def _distribution(spec: StudySpec, name: str) -> BaseDistribution:
    dimension = spec.space[name]
    if isinstance(dimension, Range):
        low, high = dimension.low, dimension.high
        field = Hyperparameters.model_fields.get(name)
        if field is not None and field.annotation is int:
            return IntDistribution(int(low), int(high), log=dimension.log)
        return FloatDistribution(float(low), float(high), log=dimension.log)
    values: list[Value] = list(dimension)
    # Points of `first`, such as Table 2, may lie outside of the lists. Optuna needs one distribution for all trials.
    values += [point[name] for point in spec.first if name in point and point[name] not in values]
    return CategoricalDistribution(values)
