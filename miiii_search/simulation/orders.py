"""Which run a free lane takes: the queue, a sampler of Optuna's, or the queue ordered by a model of the results."""

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
from miiii_search.simulation.replay import QUEUE_ORDER, Order, ReplayedRun
from miiii_search.study.trials import distributions

STATES = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
"""Of a trial by how its run ended, where it is not COMPLETE."""


class OptunaOrder:
    """A sampler of Optuna's, asked as a worker of the service asks it. For one study.

    Raises `ValueError` if two curves are of one configuration: a sampler visits each once.
    """

    def __init__(self, sampler: str, spec: StudySpec, curves: Sequence[Curve], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sampler = PointSampler(sampler, seed)
        self._spec = spec
        self._space = distributions(spec)
        self._curves = curves
        self._identities = [point_key(curve.point) for curve in curves]
        self._places = {name: k for k, name in enumerate(self._identities)}
        if len(self._places) < len(curves):
            raise ValueError("a sampler visits each configuration once, but some have several curves")
        self._grid = frozenset(point_key(point) for point in spec.points())
        self._taken: list[int] = []

    def next(self, waiting: Sequence[int], ended: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """What it draws, knowing all that has started; points without a curve count as visited."""
        trials = [self._trial(k, ended.get(k)) for k in self._taken]
        visited = self._grid.difference(self._identities[k] for k in waiting)
        k = self._places[point_key(self._sampler.sample(self._spec, trials, visited))]
        self._taken.append(k)
        return k

    def _trial(self, k: int, run: ReplayedRun | None) -> FrozenTrial:
        curve = self._curves[k]
        state = TrialState.RUNNING if run is None else STATES.get(run.ending, TrialState.COMPLETE)
        reported = [*rungs(curve.experiment), curve.last_epoch] if run is not None else []
        return create_trial(
            state=state,
            params=curve.point,
            distributions=self._space,
            value=run.value if run is not None else None,
            intermediate_values={
                epoch: curve.accuracy[epoch]
                for epoch in reported
                if run is not None and epoch <= run.epochs and epoch in curve.accuracy
            },
        )


class GridEIOrder:
    """The queue, ordered by a Gaussian process that is fitted as results arrive, as `ranking` has it. For one study.

    A run that was given up enters with its last accuracy. With the name of a dimension as `shape`, runs that share its
    value with one that is under way, or was the last to start, are favoured by a factor, as a worker favours the shapes
    that it has a program for.
    """

    def __init__(
        self, curves: Sequence[Curve], shape: str | None = None, favour: float = COMPILED_SHAPE_FACTOR
    ) -> None:
        self._x = to_coordinates([curve.point for curve in curves]) if curves else None
        self._shapes = [curve.point[shape] if shape else None for curve in curves]
        self._favour = favour
        self._last = 0

    def next(self, waiting: Sequence[int], ended: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """The run that may improve most; the queue's first while too little is known."""
        assert self._x is not None
        compiled = {self._shapes[k] for k in [*running, self._last]}
        favour = {k: self._favour for k in waiting if self._shapes[k] in compiled}
        ranked = rank_by_expected_improvement(
            self._x, {k: run.value for k, run in ended.items()}, running, waiting, factors=favour
        )
        self._last = ranked[0] if ranked else min(waiting, key=lambda k: k not in favour)
        return self._last


MakeOrder = Callable[[StudySpec, Sequence[Curve], int], Order]
"""An order for the curves of one study, in the queue's order; the last argument is a seed."""

ORDERS: dict[str, MakeOrder] = {
    "grid": lambda spec, curves, seed: QUEUE_ORDER,
    "tpe": lambda spec, curves, seed: OptunaOrder("tpe", spec, curves, seed),
    "grid_ei": lambda spec, curves, seed: GridEIOrder(curves),
}
