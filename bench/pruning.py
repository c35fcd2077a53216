"""Question: how many epochs does each pruner save on recorded curves, and how many grokkers does it lose?

    python bench/pruning.py [--quick] [--json FILE] [--figures DIR]
    python bench/pruning.py --tune
    python bench/pruning.py --sensitivity

The first command compares all pruners on the evaluation sets. The second searches for the best settings of Optuna's
pruners on the tuning sets, and the third varies the constants of `forecast` on them.

A study is drawn by choosing one seed of every configuration and an order of the queue. Every pruner replays the same
studies. docs/research/pruning.md defines what is counted, and which curves are for tuning and which for evaluation.

The first table has one row per set and pruner: means, and intervals that hold 90 % of the studies. The second has the
means over all sets.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import numpy as np
from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.analysis.figures.style import figure_bytes, figure_style
from miiii_search.config.search_space import Point
from miiii_search.config.study_sections import Pruning
from miiii_search.pruners import forecast
from miiii_search.simulation.curves import CurveSet, read_curves
from miiii_search.simulation.figure import draw_curves, draw_pruners
from miiii_search.simulation.pruner_variants import PrunerVariant, pruner_variants
from miiii_search.simulation.replay import ReplayedRun, replay
from miiii_search.simulation.scoring import GroundTruth, Summary, draw_studies, ground_truth, score_replays, summarize

BANK = Path(__file__).parent / "curves" / "bank.npz"

LANES = 8

DEFAULT = Pruning().rule
"""Name of the default pruner."""

FORECAST = PrunerVariant("forecast", pruning=Pruning(rule="forecast"))

SPLIT_SETS = ("nanda-31", "miiii-43")
"""Sets of which one half is for tuning and the other for evaluation. Other sets are for one purpose."""

TUNING_SETS = ("nanda-113",)
"""Sets for tuning only. `nanda-113` was for evaluation until an earlier version of the pruner failed on it."""

FLOORS = (0.0, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""Pruning floors that `--tune` tries, as shares of the epoch budget."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of all pruners on the same studies drawn from one set."""

    curves: CurveSet
    truths: list[GroundTruth]
    """Results without pruning, of each study."""
    compared: list[tuple[PrunerVariant, Summary]]


def split(name: str, point: Point) -> str:
    """Return whether a configuration of a set is for "tuning" or "evaluation".

    Some sets are split by a hash of the configuration, which was fixed before the first pruner was tried.
    """
    if name not in SPLIT_SETS:
        return "tuning" if name in TUNING_SETS else "evaluation"
    text = json.dumps({key: point[key] for key in sorted(point)})
    return "evaluation" if hashlib.sha256(text.encode()).digest()[0] % 2 else "tuning"


def load(path: Path, purpose: str) -> list[CurveSet]:
    """Return the non-empty sets of the curves for one purpose, "tuning" or "evaluation"."""
    chosen = [
        curves.subset([curve for curve in curves.curves if split(curves.name, curve.point) == purpose])
        for curves in read_curves(path)
    ]
    return [curves for curves in chosen if curves.curves]


def evaluate(curves: CurveSet, rules: Sequence[PrunerVariant], n: int) -> Evaluation:
    """Score pruners on the same `n` studies drawn from a set."""
    studies = draw_studies(curves, n)
    truths = [ground_truth(study) for study in studies]
    return Evaluation(
        curves, truths, [(rule, summarize(score_replays(rule, curves.spec, studies, LANES, truths))) for rule in rules]
    )


def pooled(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """Return each pruner's means over all sets, weighted by their epochs, grokkers and fastest runs."""
    epochs = np.array([fmean(truth.epochs for truth in one.truths) for one in evaluations])
    grokkers = np.array([fmean(len(truth.grokkers) for truth in one.truths) for one in evaluations])
    fastest = np.array([fmean(len(truth.fastest) for truth in one.truths) for one in evaluations])
    found = {}
    for k, (rule, _) in enumerate(evaluations[0].compared):
        means = [one.compared[k][1].mean for one in evaluations]
        lost = np.nan_to_num([mean.grokkers_lost for mean in means])
        found[rule.name] = {
            "epochs_share": float(np.average([mean.epochs_share for mean in means], weights=epochs)),
            "grokkers_lost": float(lost @ grokkers / max(grokkers.sum(), 1)),
            "top10_lost": float(sum(mean.top10_lost for mean in means) / max(fastest.sum(), 1)),
        }
    return found


def pooled_alone(sets: Sequence[CurveSet], rule: PrunerVariant, n: int) -> dict[str, float]:
    """Return the means of one pruner over all sets."""
    return pooled([evaluate(curves, [rule], n) for curves in sets])[rule.name]


def rows(evaluations: Sequence[Evaluation]) -> list[tuple[object, ...]]:
    """Return one row per set and pruner."""
    table: list[tuple[object, ...]] = []
    for one in evaluations:
        for rule, summary in one.compared:
            mean, low, high = summary.mean, summary.low, summary.high
            table.append(
                (
                    one.curves.name,
                    rule.name,
                    f"{mean.epochs_share:.1%}",
                    f"{low.epochs_share:.0%} to {high.epochs_share:.0%}",
                    f"{mean.grokkers_lost:.1%}",
                    f"{low.grokkers_lost:.0%} to {high.grokkers_lost:.0%}",
                    round(mean.top10_lost, 2),
                    round(mean.regret, 3),
                    f"{mean.first_solved:,.0f}",
                    f"{mean.best_found:,.0f}",
                )
            )
    return table


HEADER = (
    "set",
    "rule",
    "epochs",
    "90 % interval",
    "grokkers lost",
    "90 % interval",
    "of 10 fastest",
    "regret",
    "first solved",
    "best after",
)


POOLED = ("epochs", "grokkers lost", "of 10 fastest")


def candidates() -> Iterator[PrunerVariant]:
    """Yield the settings of Optuna's pruners that `--tune` tries."""
    options: dict[str, list[dict[str, float]]] = {
        "median": [{"n_startup_trials": n} for n in (5, 10, 20)],
        "percentile": [{"percentile": p, "n_startup_trials": n} for p in (5.0, 10.0, 25.0) for n in (5, 20)],
        "successive_halving": [
            {"reduction_factor": r, "min_early_stopping_rate": e} for r in (2, 3, 4) for e in (0, 1)
        ],
        "hyperband": [{"reduction_factor": r} for r in (2, 3, 4)],
        "patient": [{"patience": n} for n in (2, 3, 5, 8)],
        "threshold": [{"lower": x} for x in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)],
    }
    for (rule, settings), floor in itertools.product(options.items(), FLOORS):
        for setting in settings:
            pruning = Pruning.model_validate({"rule": rule, "options": setting})
            yield PrunerVariant(rule.replace("_", " "), "tuned", pruning, floor_share=floor)


def tune(sets: Sequence[CurveSet], n: int) -> None:
    """Print the settings with which each pruner trains fewest epochs while it loses at most 2 % of the grokkers.

    If no settings lose so few, those that lose fewest.
    """
    best: dict[str, tuple[tuple[float, float], PrunerVariant]] = {}
    for one in candidates():
        figures = pooled_alone(sets, one, n)
        lost, share = figures["grokkers_lost"], figures["epochs_share"]
        rank = (max(lost, 0.02), share)
        if one.pruner not in best or rank < best[one.pruner][0]:
            best[one.pruner] = (rank, one)
            print(
                f"{one.pruner}: {one.pruning.options} floor {one.floor_share}: epochs {share:.3f}, lost {lost:.3f}",
                flush=True,
            )


def sensitivity(sets: Sequence[CurveSet], n: int) -> list[tuple[object, ...]]:
    """Return one row per constant and value: the means of `forecast` with only this constant changed."""
    tried: dict[str, tuple[float, ...]] = {
        "MEMORISED_ACCURACY": (0.5, 0.75, 0.9, 0.95, 0.98),
        "MIN_RUNGS": (2, 8, 12),
        "SHRINKING_RATIO": (0.0, 0.8, 0.9, 0.95, 0.98, 2.0),
    }
    table: list[tuple[object, ...]] = []

    def add(name: str, value: float, rule: PrunerVariant) -> None:
        figures = pooled_alone(sets, rule, n)
        table.append((name, value, *(f"{figure:.1%}" for figure in figures.values())))

    for name, values in tried.items():
        for value in values:
            with mock.patch.object(forecast, name, value):
                add(name, value, FORECAST)
    for safety in (1.0, 1.5, 2.0, 3.0, 5.0, 10.0):
        add("safety", safety, replace(FORECAST, pruning=Pruning(rule="forecast", safety=safety)))
    for floor in (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2):
        add("floor", floor, replace(FORECAST, floor_share=floor))
    return table


def to_json(evaluations: Sequence[Evaluation], together: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return the figures of the default pruner, those of all pruners, and those of each set, for the JSON file."""
    return {
        **together[DEFAULT],
        "rules": together,
        "sets": {
            one.curves.name: {
                "grokkers_a_draw": [len(truth.grokkers) for truth in one.truths],
                "rules": {rule.name: asdict(summary) for rule, summary in one.compared},
            }
            for one in evaluations
        },
    }


def one_draw(sets: Sequence[CurveSet]) -> dict[str, list[ReplayedRun]]:
    """Replay one study of every set with the default pruner."""
    found = {}
    for curves in sets:
        [study] = draw_studies(curves, 1)
        found[curves.name] = replay(
            study, FORECAST.simulated_study(curves.spec, study), LANES, FORECAST.floor(curves.spec)
        )
    return found


def main() -> None:
    options = make_parser(__doc__, "draw 20 studies of each set instead of 200")
    options.add_argument(
        "--curves", type=Path, default=BANK, metavar="FILE", help="recorded curves (default %(default)s)"
    )
    options.add_argument("--figures", type=Path, metavar="DIR", help="folder for rules.png and curves.png")
    options.add_argument(
        "--tune", action="store_true", help="search for settings of Optuna's pruners on the tuning sets"
    )
    options.add_argument(
        "--sensitivity", action="store_true", help="change the constants of `forecast` on the tuning sets"
    )
    arguments = parse_arguments(options)
    n = 20 if arguments.quick else 200
    if arguments.tune:
        tune(load(arguments.curves, "tuning"), min(n, 50))
        return
    if arguments.sensitivity:
        changed = sensitivity(load(arguments.curves, "tuning"), n)
        print_table("forecast, one constant changed", ("constant", "value", *POOLED), changed)
        return
    sets, rules = load(arguments.curves, "evaluation"), pruner_variants()
    began = time.monotonic()
    evaluations = [evaluate(curves, rules, n) for curves in sets]
    seconds = time.monotonic() - began
    print_table(f"{n} studies of each evaluation set, {LANES} lanes", HEADER, rows(evaluations))
    together = pooled(evaluations)
    print_table(
        "all evaluation sets",
        ("rule", *POOLED),
        [(name, *(f"{value:.1%}" for value in figures.values())) for name, figures in together.items()],
    )
    studies = n * len(sets) * len(rules)
    print(f"{studies:,} studies in {seconds:.0f} s, {60 * studies / seconds:,.0f} a minute")
    if arguments.figures:
        arguments.figures.mkdir(parents=True, exist_ok=True)
        panels = {one.curves.name: one.compared for one in evaluations}
        with figure_style():
            (arguments.figures / "rules.png").write_bytes(figure_bytes(draw_pruners(panels), "png"))
            (arguments.figures / "curves.png").write_bytes(figure_bytes(draw_curves(one_draw(sets)), "png"))
    write_json(arguments.json, {**to_json(evaluations, together), "studies_per_minute": 60 * studies / seconds})


if __name__ == "__main__":
    main()
