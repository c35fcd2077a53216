"""Orders in which a simulated study starts its runs: the queue, one of Optuna's samplers, or expected improvement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from miiii_search.config.search_space import point_key
from miiii_search.config.study_spec import StudySpec, rungs
from miiii_search.samplers.gaussian_process import rank_by_expected_improvement, to_coordinates
from miiii_search.samplers.grid_ei import COMPILED_SHAPE_FACTOR
from miiii_search.samplers.optuna_samplers import PointSampler
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.replay import QUEUE_ORDER, STATES, ReplayedRun, RunOrder
from miiii_search.study.trials import distributions


class OptunaOrder:
    """The order in which one of Optuna's samplers draws the points, asked as a worker asks it. For one study.

    Args:
        sampler: Name of the sampler.
        spec: Specification of the study, which defines the search space.
        curves: Curves of the study, in the order of the queue.
        seed: Seed of the sampler.

    Raises:
        ValueError: If two curves have the same point, because a sampler visits each point once.
    """

    def __init__(self, sampler: str, spec: StudySpec, curves: Sequence[Curve], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sampler = PointSampler(sampler, seed)
        self._spec = spec
        self._space = distributions(spec)
        self._curves = curves
        self._keys = [point_key(curve.point) for curve in curves]
        self._index_of = {key: k for k, key in enumerate(self._keys)}
        if len(self._index_of) < len(curves):
            raise ValueError("a sampler visits each configuration once, but some have several curves")
        self._grid = frozenset(point_key(point) for point in spec.points())
        self._started: list[int] = []

    def next_run(self, waiting: Sequence[int], finished: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """Return the run at the point that the sampler draws. Points without a curve count as visited."""
        trials = [self._trial(k, finished.get(k)) for k in self._started]
        visited = self._grid.difference(self._keys[k] for k in waiting)
        k = self._index_of[point_key(self._sampler.sample(self._spec, trials, visited))]
        self._started.append(k)
        return k

    def _trial(self, k: int, run: ReplayedRun | None) -> FrozenTrial:
        """Return the trial of a started run, as the sampler would read it; `run` is None while it is running."""
        curve = self._curves[k]
        space = {name: self._space[name] for name in curve.point}
        if run is None:
            return create_trial(state=TrialState.RUNNING, params=curve.point, distributions=space)
        epochs = [*rungs(curve.experiment), curve.last_epoch]
        return create_trial(
            state=STATES[run.outcome],
            params=curve.point,
            distributions=space,
            value=run.value,
            intermediate_values={
                epoch: curve.accuracy[epoch] for epoch in epochs if epoch <= run.epochs and epoch in curve.accuracy
            },
        )


class GridEIOrder:
    """The order of `samplers.grid_ei`: highest expected improvement first. For one study.

    A pruned run counts with its last accuracy.

    Args:
        curves: Curves of the study, in the order of the queue.
        shape_dimension: Dimension of the search space that stands for the shape of a network. Runs that share its value
            with a running run, or with the last one started, are preferred, as a worker prefers compiled shapes.
        shape_factor: Factor for the expected improvement of preferred runs.
    """

    def __init__(
        self,
        curves: Sequence[Curve],
        shape_dimension: str | None = None,
        shape_factor: float = COMPILED_SHAPE_FACTOR,
    ) -> None:
        self._x = to_coordinates([curve.point for curve in curves]) if curves else None
        self._shapes = [curve.point[shape_dimension] if shape_dimension else None for curve in curves]
        self._shape_factor = shape_factor
        self._last = 0

    def next_run(self, waiting: Sequence[int], finished: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """Return the run with the highest expected improvement, or the first of the queue if too little is known."""
        assert self._x is not None
        compiled = {self._shapes[k] for k in [*running, self._last]}
        factors = {k: self._shape_factor for k in waiting if self._shapes[k] in compiled}
        results = {k: run.value for k, run in finished.items()}
        ranked = rank_by_expected_improvement(self._x, results, running, waiting, factors=factors)
        self._last = ranked[0] if ranked else min(waiting, key=lambda k: k not in factors)
        return self._last


MakeOrder = Callable[[StudySpec, Sequence[Curve], int], RunOrder]
"""Makes the order for a study, given its specification, its curves in the order of the queue, and a seed."""

ORDERS: dict[str, MakeOrder] = {
    "grid": lambda spec, curves, seed: QUEUE_ORDER,
    "tpe": lambda spec, curves, seed: OptunaOrder("tpe", spec, curves, seed),
    "grid_ei": lambda spec, curves, seed: GridEIOrder(curves),
}
"""Orders by the name of the sampler."""
