"""The specification of a study: all that its coordinator and its workers must agree on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from miiii_search.config.conditional import check_conditions, count_points, enumerate_points
from miiii_search.config.search_space import SEARCHED_FIELDS, FirstPoint, Point, Range, Space, Value
from miiii_search.config.study_sections import PRUNING_RULES, Budget, Pruning, Replicates
from miiii_search.config.suggestions import suggest
from miiii_search.experiment.hyperparameters import is_used
from miiii_search.experiment.spec import Experiment, Hyperparameters, Spec

GRID_SAMPLERS = ("grid_ei", "grid")
"""Samplers that try every configuration of a finite grid once: in the order of a model, or in a shuffled order."""

SAMPLERS = (*GRID_SAMPLERS, "random", "tpe", "gp", "qmc")
"""The names of all samplers. Those that do not search a grid are Optuna's; see the package `samplers`."""

MAX_GRID = 100_000
"""Maximum number of configurations in a grid: more than anyone trains. The database stores each one at the start."""


FORMAT: Literal[2] = 2
"""Format of a specification as it is written.

Format 1 called the samplers `grid_ei` and `grid` `model` and `queue`, and the `end_factor` of a decay `share`.
"""

_SAMPLERS_OF_FORMAT_1 = {"model": "grid_ei", "queue": "grid"}


def _current_format(value: Any) -> Any:
    """Return the current format for format 1, whose names are all still read."""
    return FORMAT if value == 1 else value


def _current_sampler(value: Any) -> Any:
    """Return today's name of a sampler."""
    return _SAMPLERS_OF_FORMAT_1.get(value, value) if isinstance(value, str) else value


class StudySpec(Spec):
    """All that a coordinator and its workers must agree on. The study stores it."""

    format: Annotated[Literal[2], BeforeValidator(_current_format)] = FORMAT
    """Format of the specification. The version of the package decides it, and also reads earlier formats."""
    preset: str | None = None
    """Preset from which the study was made. It is a record: choose one with `--preset`."""
    experiment: Experiment = Experiment()
    """Everything about the runs except their hyperparameters."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """Values of the hyperparameters that the space does not search over."""
    space: Space
    """Search space: a list of values or a range for each hyperparameter to search over.

    A hyperparameter that depends on another, such as `muon_learning_rate` on `optimizer`, is a dimension only of the
    points that use it.

    The fields `train_fraction`, `dropout_mask`, `grokfast_alpha` and `moduli` of the experiment may be searched over,
    too.
    """
    first: Annotated[tuple[FirstPoint, ...], Field(strict=False)] = ()
    """Points to try before all others, such as the paper's best. Each gives a value to every dimension that it uses."""
    sampler: Annotated[str, BeforeValidator(_current_sampler)] = "grid_ei"
    """Sampler: `grid_ei`, `grid`, or one of Optuna's.

    `grid_ei` tries the whole grid, the point with the largest expected improvement on the best result first. `grid`
    tries the whole grid in an order shuffled by the seed.
    """
    replicates: Replicates = Replicates()
    """Number of runs of each configuration. A plain number sets `replicates.count`."""
    budget: Budget = Budget()
    """Limits at which the study is done."""
    pruning: Pruning = Pruning()
    """Rule that ends unpromising trials early."""
    lease_seconds: Annotated[float, Field(ge=1)] = 60.0
    """Seconds without a sign of life after which a worker loses its trials.

    Leases are renewed every 5 seconds, so that a dozen renewals in a row must fail.
    """
    max_retries: Annotated[int, Field(ge=0)] = 2
    """Number of times that a trial whose loss became infinite or NaN is trained again before it fails.

    Few, since a configuration that diverges does so again.
    """
    keep_weights: Annotated[int, Field(ge=0)] = 10
    """Number of trials whose weights are kept for `analyze`: those that are among the best when they complete.

    Not all, since each takes megabytes of the database or of the artifact store.
    """

    @model_validator(mode="after")
    def _is_searchable(self) -> StudySpec:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"there is no sampler `{self.sampler}`{suggest(self.sampler, SAMPLERS)}")
        if self.pruning.rule not in PRUNING_RULES:
            raise ValueError(
                f"there is no pruning.rule `{self.pruning.rule}`{suggest(self.pruning.rule, PRUNING_RULES)}"
            )
        self._check_space()
        self._check_first()
        if self.is_grid_search:
            self._check_grid()
        else:
            self._check_sampling()
        for point in self.first:
            self.run_at(point, 0)
        return self

    def grid(self) -> list[Point]:
        """Return every combination of the dimensions' values, in their order.

        A point lacks the dimensions that its run does not use; see `conditional`.
        """
        return enumerate_points({name: self._values(name) for name in self.space}, self._fixed)

    def points(self) -> list[Point]:
        """Return the points of `first`, then the rest of the grid."""
        return [*self.first, *(point for point in self.grid() if point not in self.first)]

    def queue(self) -> list[tuple[Point, int]]:
        """Return (point, replicate) of every trial in the order of the trials' numbers, cut to the budget.

        The sampler `grid` tries them in this order.
        """
        return self.full_queue()[: self.budget.trials]

    def full_queue(self) -> list[tuple[Point, int]]:
        """Return (point, replicate) of the whole grid: `first`, then the rest, shuffled by the seed.

        One replicate of the whole grid comes before the next. Only the first replicate is here if `replicates.top` is
        set, since the study then chooses the others later.
        """
        generator = random.Random(self.experiment.seed)
        order: list[tuple[Point, int]] = []
        for replicate in range(self.replicates.count if self.replicates.top is None else 1):
            rest = self.points()[len(self.first) :]
            generator.shuffle(rest)
            order += [(point, replicate) for point in [*self.first, *rest]]
        return order

    def corners(self) -> list[Point]:
        """Return the extreme points of the space. If they are valid, so are the points between them."""
        ends = {
            name: [dimension.low, dimension.high] if isinstance(dimension, Range) else list(dimension)
            for name, dimension in self.space.items()
        }
        return enumerate_points(ends, self._fixed)

    def run_at(self, point: Mapping[str, Value], replicate: int) -> tuple[Experiment, Hyperparameters]:
        """Return the experiment and the hyperparameters of a run.

        Args:
            point: A point of the space. Dimensions that its run does not use have their defaults.
            replicate: The replicate, from 0. It is added to the experiment's seed.

        Raises:
            ValueError: The point has a value that is not allowed.
        """
        hyperparameters = self.hyperparameters.model_dump()
        hyperparameters |= {k: v for k, v in point.items() if k in Hyperparameters.model_fields}
        unused = [k for k in self.space if k not in point and not is_used(k, hyperparameters)]
        experiment = {k: v for k, v in point.items() if k not in Hyperparameters.model_fields}
        experiment["seed"] = self.experiment.seed + replicate
        return (
            Experiment(**{**self.experiment.model_dump(), **experiment}),
            Hyperparameters(**{k: v for k, v in hyperparameters.items() if k not in unused}),
        )

    @property
    def n_trials(self) -> int:
        """Number of trials of the completed study, as far as the specification tells.

        `study.expected_trials` also knows the other limits. A sampler over lists visits each point once.
        """
        if self.is_grid_search:
            points = self._n_points
            runs = points + self._n_further(points)
            return runs if self.budget.trials is None else min(runs, self.budget.trials)
        budget = self.budget.trials or 0
        return min(budget, self._n_points) if self.is_finite else budget

    @property
    def is_grid_search(self) -> bool:
        """Whether all trials are created with the study. Other samplers create them one by one."""
        return self.sampler in GRID_SAMPLERS

    @property
    def is_finite(self) -> bool:
        """Whether every dimension is a list of values."""
        return not any(isinstance(dimension, Range) for dimension in self.space.values())

    @property
    def pruning_floor(self) -> int:
        """Epoch before which no trial is pruned."""
        if self.pruning.min_epochs is not None:
            return self.pruning.min_epochs
        divisor = 8 if self.pruning.rule == "forecast" else 4
        return max(self.experiment.epochs // divisor, self.experiment.annealing.end)

    @property
    def _n_points(self) -> int:
        """Number of `points`, without listing them."""
        values = {name: self._values(name) for name in self.space}
        outside = sum(any(value not in values[name] for name, value in point.items()) for point in self.first)
        return count_points(values, self._fixed) + outside

    @property
    def _fixed(self) -> dict[str, Any]:
        """The hyperparameters that the space does not search over, by name. Options that are off are left out."""
        values = self.hyperparameters.model_dump()
        return {name: value for name, value in values.items() if name not in self.space}

    def _n_further(self, points: int) -> int:
        """Return the number of runs besides the first run of each of `points` points, or its maximum."""
        top = self.replicates.top
        return (self.replicates.count - 1) * (points if top is None else min(top, points))

    def _values(self, name: str) -> tuple[Value, ...]:
        dimension = self.space[name]
        assert not isinstance(dimension, Range)
        return dimension

    def _check_space(self) -> None:
        known = [*Hyperparameters.model_fields, *SEARCHED_FIELDS]
        for name, dimension in self.space.items():
            if name not in known:
                raise ValueError(f"space.{name} cannot be searched over{suggest(name, known)}")
            if name == "moduli" and isinstance(dimension, Range):
                raise ValueError("space.moduli is a range, but must be a list of subsets, such as ['all', [2], [2, 3]]")
            values = () if isinstance(dimension, Range) else dimension
            for k, value in enumerate(values):
                if value in values[:k]:
                    raise ValueError(f"space.{name} lists {value} twice; leave one out")
        check_conditions(self.space, self._fixed)

    def _check_first(self) -> None:
        for k, point in enumerate(self.first):
            used = [name for name in self.space if is_used(name, {**self._fixed, **point})]
            if point.keys() != set(used):
                raise ValueError(f"first[{k}] must give a value to each of {', '.join(used)}")
            if point in self.first[:k]:
                raise ValueError(f"first[{k}] is there twice; leave one out")

    def _check_grid(self) -> None:
        """Check that the space is a grid, that it is not too large, and that all of its points are valid.

        Hyperparameters and experiments are valid independently of each other. So each group is checked alone, not every
        combination of both: that would take a second for 10,000 configurations, each time a study is opened.
        """
        for name, dimension in self.space.items():
            if isinstance(dimension, Range):
                raise ValueError(
                    f"space.{name} is a range, which sampler = '{self.sampler}' cannot enumerate: list its values, "
                    "or choose another sampler, for example sampler = 'tpe'"
                )
        points = count_points({name: self._values(name) for name in self.space}, self._fixed)
        size = points + self._n_further(points)
        if size > MAX_GRID:
            raise ValueError(f"the grid has {size} configurations, {MAX_GRID} at most; shorten the lists")
        names = [name for name in self.space if name in Hyperparameters.model_fields]
        for group in (names, [name for name in self.space if name not in names]):
            spec, base = (Hyperparameters, self.hyperparameters) if group is names else (Experiment, self.experiment)
            known = base.model_dump()
            for point in enumerate_points({name: self._values(name) for name in group}, self._fixed):
                spec(**{**known, **point})

    def _check_sampling(self) -> None:
        """Check what a sampler needs that creates trials one by one."""
        if self.budget.trials is None:
            raise ValueError(f"sampler = '{self.sampler}' needs a budget: set budget.trials, or --trials N")
        if self.replicates.count > 1:
            raise ValueError(f"replicates need sampler = 'grid_ei' or 'grid'; '{self.sampler}' visits each point once")
        for point in self.corners():
            self.run_at(point, 0)


def rungs(experiment: Experiment) -> list[int]:
    """Return the epochs at which a trial reports, in ascending order.

    They are 2^k and 1.5·2^k, each moved to the next evaluation, and the last epoch.
    """
    interval, last = experiment.evaluation_interval, experiment.epochs
    powers = itertools.takewhile(lambda n: n <= last, (2**k for k in itertools.count()))
    nominal = [n for power in powers for n in (power, power + power // 2) if n <= last]
    return sorted({-(-n // interval) * interval for n in nominal} | {last})
