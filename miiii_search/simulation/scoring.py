"""What a replayed study cost, and what it lost."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from miiii_search.config.search_space import PointKey, point_key
from miiii_search.config.study_spec import StudySpec
from miiii_search.simulation.curves import Curve, CurveSet
from miiii_search.simulation.pruner_variants import PrunerVariant
from miiii_search.simulation.replay import ReplayedRun, replay

FASTEST = 10

NEARLY = 0.9
"""Where no run solves every task, those that come within this of the best one's accuracy stand for grokkers."""


@dataclass(frozen=True)
class GroundTruth:
    """What the runs of a study come to if nobody gives any up."""

    grokkers: frozenset[int]
    """The numbers of those that solve every task; where none does, of those that end nearly as well as the best."""
    fastest: frozenset[int]
    """Of these the ten best by the objective."""
    best: float
    """The best objective."""
    epochs: int
    """Of all runs to the ends of their budgets, solved or not."""
    solved: bool
    """Whether the grokkers have solved every task."""


def ground_truth(curves: Sequence[Curve]) -> GroundTruth:
    """The truth about recorded runs; a run that was pruned as it was recorded counts with what is known of it."""
    known = [curve for curve in curves if curve.objective is not None]
    by_objective = sorted(known, key=lambda curve: (-(curve.objective or 0.0), curve.number))
    best = by_objective[0].objective if by_objective else None
    solved = [curve for curve in by_objective if curve.solved_epoch is not None]
    grokkers = solved or [c for c in by_objective if not c.pruned and (c.objective or 0.0) >= NEARLY * (best or 0.0)]
    return GroundTruth(
        frozenset(curve.number for curve in grokkers),
        frozenset(curve.number for curve in grokkers[:FASTEST]),
        best if best is not None else math.nan,
        sum(curve.ended_epoch if curve.failed else curve.experiment.epochs for curve in curves),
        bool(solved),
    )


@dataclass(frozen=True)
class Score:
    """One replayed study. Shares are of 1; times are in epochs of one lane since the study began."""

    epochs_share: float
    """Of the epochs of all runs to the ends of their budgets."""
    grokkers_lost: float
    """The share of grokkers that were given up; NaN where there is none."""
    top10_lost: float
    """How many of the ten fastest were."""
    first_solved: float
    """When the first run was solved; NaN if none was."""
    best_found: float
    """When the run that is exported was completed; NaN if none was."""
    regret: float
    """The best objective less that of the run that is exported, which is 0 if none was completed."""
    pruned: float
    """The share of runs that were given up."""


def score(truth: GroundTruth, runs: Sequence[ReplayedRun]) -> Score:
    """What one replayed study came to."""
    pruned = {run.curve.number for run in runs if run.ending == "pruned"}
    completed = [run for run in runs if run.objective is not None]
    solved = [run.ended for run in runs if run.ending == "solved"]
    best = min(completed, key=lambda run: (-(run.objective or 0.0), run.curve.number), default=None)
    return Score(
        sum(run.epochs for run in runs) / max(truth.epochs, 1),
        len(pruned & truth.grokkers) / len(truth.grokkers) if truth.grokkers else math.nan,
        float(len(pruned & truth.fastest)),
        min(solved, default=math.nan),
        best.ended if best else math.nan,
        truth.best - (best.objective or 0.0 if best else 0.0),
        len(pruned) / max(len(runs), 1),
    )


@dataclass(frozen=True)
class Summary:
    """Scores of several replays: the mean of each figure, and the interval that holds nine of ten."""

    mean: Score
    low: Score
    high: Score
    replays: int


def summarize(scores: Sequence[Score]) -> Summary:
    """Raises `ValueError` for no scores."""
    if not scores:
        raise ValueError("there is nothing to summarize")

    def each(figure: Callable[[list[float]], float]) -> Score:
        columns = {field.name: [getattr(one, field.name) for one in scores] for field in fields(Score)}
        known = {name: [value for value in column if not math.isnan(value)] for name, column in columns.items()}
        return Score(**{name: figure(sorted(column)) if column else math.nan for name, column in known.items()})

    def quantile(share: float) -> Callable[[list[float]], float]:
        return lambda values: values[round(share * (len(values) - 1))]

    return Summary(each(statistics.fmean), each(quantile(0.05)), each(quantile(0.95)), len(scores))


def draw_studies(curves: CurveSet, n: int, seed: int = 0) -> list[list[Curve]]:
    """`n` studies as they might have been: of every configuration one seed, in a shuffled order."""
    by_point: dict[PointKey, list[Curve]] = {}
    for curve in curves.curves:
        by_point.setdefault(point_key(curve.point), []).append(curve)
    generator, drawn = random.Random(seed), []
    for _ in range(n):
        one = [generator.choice(seeds) for seeds in by_point.values()]
        generator.shuffle(one)
        drawn.append(one)
    return drawn


def shuffled_studies(curves: CurveSet, n: int, seed: int = 0) -> list[list[Curve]]:
    """`n` studies of all the curves: as they are, then in shuffled orders."""
    generator = random.Random(seed)
    orders = [list(curves.curves)]
    for _ in range(n - 1):
        orders.append(generator.sample(curves.curves, len(curves.curves)))
    return orders[:n]


def score_replays(
    contender: PrunerVariant,
    spec: StudySpec,
    studies: Sequence[Sequence[Curve]],
    lanes: int,
    truths: Sequence[GroundTruth],
) -> list[Score]:
    """The score of each study under one rule; `truths` are those of the studies."""
    floor, court, scores = contender.floor(spec), contender.court(spec, []), []
    for curves, truth in zip(studies, truths, strict=True):
        scores.append(score(truth, replay(curves, court.again(curves), lanes, floor)))
    return scores
