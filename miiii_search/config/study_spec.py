"""What a study is: an experiment, a search space, a budget and a pruning rule; and how a spec is edited."""

from __future__ import annotations

import difflib
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from miiii_search.experiment.spec import Experiment, Hyperparameters, Spec

SpecT = TypeVar("SpecT", bound=BaseModel)
Value = float | int | str
Point = dict[str, Value]
"""A point of a search space: the value of each name in it."""
PointKey = tuple[tuple[str, Value], ...]


def point_key(point: Mapping[str, Value]) -> PointKey:
    """The same for the same point, and for no other."""
    return tuple(sorted(point.items()))


SEARCHED_FIELDS = ("train_fraction", "dropout_mask", "grokfast_alpha")
"""Fields of the experiment that may be searched over, beside the hyperparameters: the others change the problem."""

GRID_SAMPLERS = ("model", "queue")
"""The samplers that try a finite grid whole, each configuration once: in the order of a model, or in a shuffled one."""

SAMPLERS = (*GRID_SAMPLERS, "random", "tpe", "gp", "qmc")
"""The queues are ours, see `ranking`; the others are Optuna's, see `sampling`."""

PRUNING_RULES = (
    "none",
    "forecast",
    "quantile",
    "median",
    "percentile",
    "successive_halving",
    "hyperband",
    "patient",
    "threshold",
)
"""`none`, `forecast` and `quantile` are ours; the others are Optuna's, see `pruning`."""

MAX_GRID = 100_000
"""More configurations than anyone trains; a grid is written into the database whole."""


class Range(Spec):
    """A continuous or, for integer bounds, discrete interval; with `log`, uniform in the logarithm."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _is_not_empty(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, but low = {self.low} and high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be positive where log = true, but low = {self.low}")
        return self


Dimension = Annotated[tuple[Value, ...], Field(strict=False, min_length=1)] | Range


class Budget(Spec):
    """When the study is done, if the queue does not end first. What is running then goes back to the queue."""

    trials: Annotated[int, Field(gt=0)] | None = None
    """Unset: the whole grid."""
    solved: Annotated[int, Field(gt=0)] | None = None
    """So many trials whose run is solved; never more."""
    device_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """GPU-hours, of all workers together: hours for which they hold devices, times devices; never more."""
    wall_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Since the first trial was claimed; nothing is trained after them."""

    @property
    def has_limits(self) -> bool:
        """Whether anything but trials is counted."""
        return (self.solved, self.device_hours, self.wall_hours) != (None, None, None)


class Pruning(Spec):
    """Which trials are given up early; see `pruning`."""

    rule: str = "forecast"
    min_epochs: Annotated[int, Field(ge=0)] | None = None
    """The floor: no trial is pruned before it. Unset: a quarter of the budget of epochs, an eighth for `forecast`; not
    before the end of an annealing, which changes the pace of a run."""
    safety: Annotated[float, Field(ge=1, le=100)] = 3.0
    """For `forecast`: how many times as fast as before a run's loss may fall from now on. More gives up less."""
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """For `quantile`: a trial below this quantile of all trials at the same rung is given up."""
    min_trials: Annotated[int, Field(ge=2)] = 4
    """For `quantile`: peers (itself included) without which nothing is decided."""
    options: dict[str, bool | int | float] = Field(default_factory=dict)
    """For Optuna's pruners: arguments of their constructors."""


class Replicates(Spec):
    """How many runs of a configuration there are; replicate r is trained with the seed experiment.seed + r.

    Written as a number where every configuration has as many, which is all that earlier versions knew.
    """

    count: Annotated[int, Field(gt=0)] = 1
    top: Annotated[int, Field(gt=0)] | None = None
    """Only so many configurations get more than one run: the best, once all have had their first. Unset: all."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping | Replicates) else {"count": value}

    @model_validator(mode="after")
    def _has_some_to_give(self) -> Replicates:
        if self.top is not None and self.count == 1:
            raise ValueError(
                f"replicates.top = {self.top} gives the further of replicates.count = 1 runs, of which there are none: "
                "set replicates.count to 2 or more"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_number(self, as_table: SerializerFunctionWrapHandler) -> Any:
        return self.count if self.top is None else as_table(self)


class StudySpec(Spec):
    """All that a coordinator and its workers must agree on. It lives in the study."""

    format: Literal[1] = 1
    preset: str | None = None
    experiment: Experiment = Experiment()
    hyperparameters: Hyperparameters = Hyperparameters()
    """Values of what the space does not search over."""
    space: dict[str, Dimension]
    first: Annotated[tuple[dict[str, Value], ...], Field(strict=False)] = ()
    """Points to try before all others, such as the paper's best; each names every dimension of the space."""
    sampler: str = "model"
    """`model`: the whole grid, what may improve most on the best result so far first; `queue`: the whole grid, shuffled
    by the seed; or one of Optuna's samplers."""
    replicates: Replicates = Replicates()
    """Runs of each grid point, or of the best ones."""
    budget: Budget = Budget()
    pruning: Pruning = Pruning()
    lease_seconds: Annotated[float, Field(ge=1)] = 60.0
    """A worker that has been silent for so long loses its trials."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose loss was not finite is trained again before it has failed."""
    keep_weights: Annotated[int, Field(ge=0)] = 10
    """A completed trial that is among so many best ones when it ends keeps its weights, for `analyze`."""

    @model_validator(mode="after")
    def _is_searchable(self) -> StudySpec:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"there is no sampler `{self.sampler}`{suggest(self.sampler, SAMPLERS)}")
        if self.pruning.rule not in PRUNING_RULES:
            raise ValueError(
                f"there is no pruning.rule `{self.pruning.rule}`{suggest(self.pruning.rule, PRUNING_RULES)}"
            )
        known = [*Hyperparameters.model_fields, *SEARCHED_FIELDS]
        for name, dimension in self.space.items():
            if name not in known:
                raise ValueError(f"space.{name} cannot be searched over{suggest(name, known)}")
            values = () if isinstance(dimension, Range) else dimension
            for k, value in enumerate(values):
                if value in values[:k]:
                    raise ValueError(f"space.{name} lists {value} twice; leave one out")
        for k, point in enumerate(self.first):
            if point.keys() != self.space.keys():
                raise ValueError(f"first[{k}] must give a value to each of {', '.join(self.space)}")
            if point in self.first[:k]:
                raise ValueError(f"first[{k}] is there twice; leave one out")
        ranges = [name for name, dimension in self.space.items() if isinstance(dimension, Range)]
        if self.is_grid_search:
            if ranges:
                raise ValueError(
                    f"space.{ranges[0]} is a range, which the queue cannot enumerate: list its values, "
                    "or choose a sampler, for example sampler = 'tpe'"
                )
            points = math.prod(len(self._values(name)) for name in self.space)
            size = points + self._n_further(points)
            if size > MAX_GRID:
                raise ValueError(f"the grid has {size} configurations, {MAX_GRID} at most; shorten the lists")
            self._check_grid()
        else:
            if self.budget.trials is None:
                raise ValueError(f"sampler = '{self.sampler}' needs a budget: set budget.trials, or --trials N")
            if self.replicates.count > 1:
                raise ValueError(
                    f"replicates need sampler = 'model' or 'queue'; '{self.sampler}' visits each point once"
                )
            for point in self.corners():
                self.run(point, 0)
        for point in self.first:
            self.run(point, 0)
        return self

    def grid(self) -> list[Point]:
        """Every combination of the lists, in their order."""
        values = [self._values(name) for name in self.space]
        return [dict(zip(self.space, point, strict=True)) for point in itertools.product(*values)]

    def points(self) -> list[Point]:
        """`first`, then the rest of the grid."""
        return [*self.first, *(point for point in self.grid() if point not in self.first)]

    def queue(self) -> list[tuple[Point, int]]:
        """(point, replicate) in the order in which the study tries them, or knows them by. Cut to the budget."""
        return self.order()[: self.budget.trials]

    def order(self) -> list[tuple[Point, int]]:
        """(point, replicate) of the whole grid: `first`, then the rest, shuffled.

        A replicate of the whole grid is done before the next begins; where only the best get further ones, it is the
        only one here, see `selecting`.
        """
        generator = random.Random(self.experiment.seed)
        order: list[tuple[Point, int]] = []
        for replicate in range(self.replicates.count if self.replicates.top is None else 1):
            rest = self.points()[len(self.first) :]
            generator.shuffle(rest)
            order += [(point, replicate) for point in [*self.first, *rest]]
        return order

    def corners(self) -> list[Point]:
        """The extreme points of the space: if they are valid, so are the points between them."""
        ends = [
            [dimension.low, dimension.high] if isinstance(dimension, Range) else list(dimension)
            for dimension in self.space.values()
        ]
        return [dict(zip(self.space, point, strict=True)) for point in itertools.product(*ends)]

    def run(self, point: Mapping[str, Value], replicate: int) -> tuple[Experiment, Hyperparameters]:
        """The run at a point of the space. Raises `ValueError` if there is no such run."""
        hyperparameters = {k: v for k, v in point.items() if k in Hyperparameters.model_fields}
        experiment = {k: v for k, v in point.items() if k not in Hyperparameters.model_fields}
        experiment["seed"] = self.experiment.seed + replicate
        return (
            Experiment(**{**self.experiment.model_dump(), **experiment}),
            Hyperparameters(**{**self.hyperparameters.model_dump(), **hyperparameters}),
        )

    @property
    def n_trials(self) -> int:
        """How many trials the study has when it is done, as far as the spec tells; see `study.expected_trials`.

        A sampler over lists visits each point once.
        """
        if self.is_grid_search:
            points = self._n_points
            runs = points + self._n_further(points)
            return runs if self.budget.trials is None else min(runs, self.budget.trials)
        budget = self.budget.trials or 0
        return min(budget, self._n_points) if self.is_finite else budget

    @property
    def is_grid_search(self) -> bool:
        """Whether the trials are there from the beginning; a sampler makes them as it goes."""
        return self.sampler in GRID_SAMPLERS

    @property
    def is_finite(self) -> bool:
        """Whether every dimension is a list."""
        return not any(isinstance(dimension, Range) for dimension in self.space.values())

    @property
    def pruning_floor(self) -> int:
        """The epoch before which nothing is pruned."""
        if self.pruning.min_epochs is not None:
            return self.pruning.min_epochs
        share = 8 if self.pruning.rule == "forecast" else 4
        return max(self.experiment.epochs // share, self.experiment.annealing.end)

    @property
    def _n_points(self) -> int:
        """The number of `points`, without listing them."""
        values = {name: self._values(name) for name in self.space}
        beside = sum(any(point[name] not in values[name] for name in values) for point in self.first)
        return math.prod(map(len, values.values())) + beside

    def _check_grid(self) -> None:
        """Raises `ValueError` if a point of the grid has no run.

        An experiment is valid or not whatever the hyperparameters, and the reverse, so that not every point of both
        together is looked at: a command that opens a study of 10,000 configurations would spend a second on it.
        """
        names = [name for name in self.space if name in Hyperparameters.model_fields]
        for group in (names, [name for name in self.space if name not in names]):
            spec, base = (Hyperparameters, self.hyperparameters) if group is names else (Experiment, self.experiment)
            known = base.model_dump()
            for values in itertools.product(*(self._values(name) for name in group)):
                spec(**{**known, **dict(zip(group, values, strict=True))})

    def _n_further(self, points: int) -> int:
        """Runs beyond the first of each of so many points; at most, where only the best get them."""
        top = self.replicates.top
        return (self.replicates.count - 1) * (points if top is None else min(top, points))

    def _values(self, name: str) -> tuple[Value, ...]:
        dimension = self.space[name]
        assert not isinstance(dimension, Range)
        return dimension


def rungs(experiment: Experiment) -> list[int]:
    """The epochs of its own clock at which a trial reports: 2^k and 1.5·2^k, each moved to the next evaluation.

    The last epoch is one too.
    """
    interval, last = experiment.evaluation_interval, experiment.epochs
    powers = itertools.takewhile(lambda n: n <= last, (2**k for k in itertools.count()))
    nominal = [n for power in powers for n in (power, power + power // 2) if n <= last]
    return sorted({-(-n // interval) * interval for n in nominal} | {last})


def suggest(name: str, known: Sequence[str]) -> str:
    """`; did you mean …?`, or all that is known where nothing is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; one of {', '.join(known)}"
