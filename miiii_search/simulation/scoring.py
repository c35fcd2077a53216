"""Scores replayed studies: what a pruner saves, and which good runs it loses."""

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
from miiii_search.study.best_trials import best_first_key

N_FASTEST = 10
"""Number of runs that count as the fastest."""

NEAR_BEST_SHARE = 0.9
"""If no run of a study solves every task, runs with at least this share of the best objective count as grokkers."""


@dataclass(frozen=True)
class GroundTruth:
    """The results of a study's runs without pruning."""

    grokkers: frozenset[int]
    """Numbers of the runs that solve every task. If none does, of the runs that end nearly as well as the best."""
    fastest: frozenset[int]
    """Numbers of the ten grokkers with the best objectives."""
    best: float
    """The best objective; NaN if no run has one."""
    epochs: int
    """Total number of epochs if every run is trained to the end of its budget, solved or not, unless it fails."""
    solved: bool
    """Whether the grokkers have solved every task."""


def ground_truth(curves: Sequence[Curve]) -> GroundTruth:
    """Return the results of recorded runs without pruning. A run recorded as pruned counts with its known part."""
    known = [curve for curve in curves if curve.objective is not None]
    by_objective = sorted(known, key=lambda curve: best_first_key(curve.objective, curve.number))
    best = by_objective[0].objective if by_objective else None
    solved = [curve for curve in by_objective if curve.solved_epoch is not None]
    near_best = [
        curve
        for curve in by_objective
        if not curve.pruned and (curve.objective or 0.0) >= NEAR_BEST_SHARE * (best or 0.0)
    ]
    grokkers = solved or near_best
    return GroundTruth(
        frozenset(curve.number for curve in grokkers),
        frozenset(curve.number for curve in grokkers[:N_FASTEST]),
        best if best is not None else math.nan,
        sum(curve.ended_epoch if curve.failed else curve.experiment.epochs for curve in curves),
        bool(solved),
    )


@dataclass(frozen=True)
class Score:
    """The score of one replayed study. Shares are between 0 and 1; times are in epochs of one lane."""

    epochs_share: float
    """Trained epochs as a share of `GroundTruth.epochs`."""
    grokkers_lost: float
    """Share of the grokkers that were pruned; NaN if there are no grokkers."""
    top10_lost: float
    """Number of the ten fastest grokkers that were pruned."""
    first_solved: float
    """Time at which the first run was solved; NaN if none was."""
    best_found: float
    """Time at which the best completed run ended; NaN if no run was completed."""
    regret: float
    """The best objective without pruning minus that of the best completed run, or minus 0 if none was completed."""
    pruned: float
    """Share of the runs that were pruned."""


def score(truth: GroundTruth, runs: Sequence[ReplayedRun]) -> Score:
    """Return the score of one replayed study.

    Args:
        truth: The results of the same runs without pruning.
        runs: All runs of the replayed study.
    """
    pruned = {run.curve.number for run in runs if run.outcome == "pruned"}
    completed = [run for run in runs if run.objective is not None]
    solved_times = [run.finished for run in runs if run.outcome == "solved"]
    best = min(completed, key=lambda run: best_first_key(run.objective, run.curve.number), default=None)
    return Score(
        sum(run.epochs for run in runs) / max(truth.epochs, 1),
        len(pruned & truth.grokkers) / len(truth.grokkers) if truth.grokkers else math.nan,
        float(len(pruned & truth.fastest)),
        min(solved_times, default=math.nan),
        best.finished if best else math.nan,
        truth.best - (best.objective or 0.0 if best else 0.0),
        len(pruned) / max(len(runs), 1),
    )


@dataclass(frozen=True)
class Summary:
    """Scores of several replays: the mean of each field, and an interval that holds 90 % of the replays."""

    mean: Score
    low: Score
    high: Score
    replays: int
    """Number of replays."""


def summarize(scores: Sequence[Score]) -> Summary:
    """Return the summary of some scores. NaN values are left out.

    Raises:
        ValueError: If there are no scores.
    """
    if not scores:
        raise ValueError("there is nothing to summarize")
    columns = {field.name: [getattr(one, field.name) for one in scores] for field in fields(Score)}
    known = {name: sorted(x for x in column if not math.isnan(x)) for name, column in columns.items()}

    def reduce(statistic: Callable[[list[float]], float]) -> Score:
        return Score(**{name: statistic(values) if values else math.nan for name, values in known.items()})

    def quantile(share: float) -> Callable[[list[float]], float]:
        return lambda values: values[round(share * (len(values) - 1))]

    return Summary(reduce(statistics.fmean), reduce(quantile(0.05)), reduce(quantile(0.95)), len(scores))


def draw_studies(curves: CurveSet, n: int, seed: int = 0) -> list[list[Curve]]:
    """Return `n` random studies: one replicate of every configuration, in a shuffled order."""
    by_point: dict[PointKey, list[Curve]] = {}
    for curve in curves.curves:
        by_point.setdefault(point_key(curve.point), []).append(curve)
    generator = random.Random(seed)
    studies = []
    for _ in range(n):
        study = [generator.choice(replicates) for replicates in by_point.values()]
        generator.shuffle(study)
        studies.append(study)
    return studies


def shuffled_studies(curves: CurveSet, n: int, seed: int = 0) -> list[list[Curve]]:
    """Return `n` studies of all curves: one in the recorded order, the others in shuffled orders."""
    generator = random.Random(seed)
    studies = [list(curves.curves)]
    for _ in range(n - 1):
        studies.append(generator.sample(curves.curves, len(curves.curves)))
    return studies[:n]


def score_replays(
    variant: PrunerVariant,
    spec: StudySpec,
    studies: Sequence[Sequence[Curve]],
    lanes: int,
    truths: Sequence[GroundTruth],
) -> list[Score]:
    """Replay studies under one pruner, and return the score of each.

    Args:
        variant: The pruner.
        spec: Specification of the studies.
        studies: Curves of each study, in the order of its queue.
        lanes: Number of runs that are trained at the same time.
        truths: The results of each study without pruning.

    Raises:
        MiiiiSearchError: If one of Optuna's pruners does not accept its options.
    """
    floor, simulated, scores = variant.floor(spec), variant.simulated_study(spec, []), []
    for curves, truth in zip(studies, truths, strict=True):
        scores.append(score(truth, replay(curves, simulated.for_curves(curves), lanes, floor)))
    return scores
