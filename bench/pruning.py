"""Judges pruning rules on recorded curves: epochs saved against grokkers lost.

    python bench/pruning.py [--quick] [--json FILE] [--figures DIR]   # on the judging sets
    python bench/pruning.py --tune                                    # settings of Optuna's pruners, on the making sets
    python bench/pruning.py --sensitivity                             # our rule's constants, on the making sets

A study is drawn by taking one seed of every configuration and an order of the queue; every rule replays the same
draws. docs/pruning.md says what is counted, and which curves are for making a rule and which for judging it.
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
"""The rule that a study has where nothing is said."""

FORECAST = PrunerVariant("forecast", pruning=Pruning(rule="forecast"))

FOR_BOTH = ("nanda-31", "miiii-43")
"""The sets of which a half is for making; of others all or nothing is."""

FOR_MAKING = ("nanda-113",)
"""Was for judging, until the rule as it was then failed on it."""

FLOORS = (0.0, 1 / 8, 1 / 4, 1 / 2, 3 / 4)


@dataclass(frozen=True)
class Judged:
    """What every rule came to on the same draws of one set."""

    curves: CurveSet
    truths: list[GroundTruth]
    """Of each draw."""
    compared: list[tuple[PrunerVariant, Summary]]


def split(name: str, point: Point) -> str:
    """`making` or `judging`: of sets for both by a hash of the configuration, fixed before the first rule was tried."""
    if name not in FOR_BOTH:
        return "making" if name in FOR_MAKING else "judging"
    text = json.dumps({key: point[key] for key in sorted(point)})
    return "judging" if hashlib.sha256(text.encode()).digest()[0] % 2 else "making"


def load(path: Path, half: str) -> list[CurveSet]:
    """The sets of one half that hold any curve."""
    chosen = [
        curves.subset([curve for curve in curves.curves if split(curves.name, curve.point) == half])
        for curves in read_curves(path)
    ]
    return [curves for curves in chosen if curves.curves]


def judge(curves: CurveSet, rules: Sequence[PrunerVariant], n: int) -> Judged:
    """Every rule on the same `n` draws of a set."""
    studies = draw_studies(curves, n)
    truths = [ground_truth(study) for study in studies]
    return Judged(
        curves, truths, [(rule, summarize(score_replays(rule, curves.spec, studies, LANES, truths))) for rule in rules]
    )


def pooled(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Each rule's mean figures over all sets: every epoch, every grokker and every one of the ten fastest alike."""
    epochs = np.array([fmean(truth.epochs for truth in one.truths) for one in judged])
    grokkers = np.array([fmean(len(truth.grokkers) for truth in one.truths) for one in judged])
    fastest = np.array([fmean(len(truth.fastest) for truth in one.truths) for one in judged])
    found = {}
    for k, (rule, _) in enumerate(judged[0].compared):
        means = [one.compared[k][1].mean for one in judged]
        lost = np.nan_to_num([mean.grokkers_lost for mean in means])
        found[rule.name] = {
            "epochs_share": float(np.average([mean.epochs_share for mean in means], weights=epochs)),
            "grokkers_lost": float(lost @ grokkers / max(grokkers.sum(), 1)),
            "top10_lost": float(sum(mean.top10_lost for mean in means) / max(fastest.sum(), 1)),
        }
    return found


def pooled_alone(sets: Sequence[CurveSet], rule: PrunerVariant, n: int) -> dict[str, float]:
    """The pooled figures of one rule."""
    return pooled([judge(curves, [rule], n) for curves in sets])[rule.name]


def rows(judged: Sequence[Judged]) -> list[tuple[object, ...]]:
    """Of every set a row a rule."""
    table: list[tuple[object, ...]] = []
    for one in judged:
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
    "of 9 in 10",
    "grokkers lost",
    "of 9 in 10",
    "of 10 fastest",
    "regret",
    "first solved",
    "best after",
)


POOLED = ("epochs", "grokkers lost", "of 10 fastest")


def candidates() -> Iterator[PrunerVariant]:
    """The settings of Optuna's pruners that are tried."""
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
    """Prints the settings of each pruner that save most and lose at most 2 % of the grokkers; or lose fewest."""
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
    """Our rule with each of its constants changed alone."""
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


def to_json(judged: Sequence[Judged], together: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The figures of the default rule, those of all rules, and of each on every set."""
    return {
        **together[DEFAULT],
        "rules": together,
        "sets": {
            one.curves.name: {
                "grokkers_a_draw": [len(truth.grokkers) for truth in one.truths],
                "rules": {rule.name: asdict(summary) for rule, summary in one.compared},
            }
            for one in judged
        },
    }


def one_draw(sets: Sequence[CurveSet]) -> dict[str, list[ReplayedRun]]:
    """Of every set a study under the default rule."""
    found = {}
    for curves in sets:
        [study] = draw_studies(curves, 1)
        found[curves.name] = replay(
            study, FORECAST.simulated_study(curves.spec, study), LANES, FORECAST.floor(curves.spec)
        )
    return found


def main() -> None:
    options = make_parser(__doc__, "20 draws instead of 200")
    options.add_argument("--curves", type=Path, default=BANK, help="the recorded curves")
    options.add_argument("--figures", type=Path, metavar="DIR", help="where to draw rules.png")
    options.add_argument(
        "--tune", action="store_true", help="look for settings of Optuna's pruners, on the making sets"
    )
    options.add_argument("--sensitivity", action="store_true", help="change our rule's constants, on the making sets")
    arguments = parse_arguments(options)
    n = 20 if arguments.quick else 200
    if arguments.tune:
        tune(load(arguments.curves, "making"), min(n, 50))
        return
    if arguments.sensitivity:
        changed = sensitivity(load(arguments.curves, "making"), n)
        print_table("forecast, one constant changed", ("constant", "value", *POOLED), changed)
        return
    sets, rules = load(arguments.curves, "judging"), pruner_variants()
    began = time.monotonic()
    judged = [judge(curves, rules, n) for curves in sets]
    seconds = time.monotonic() - began
    print_table(f"{n} draws of each judging set, {LANES} lanes", HEADER, rows(judged))
    together = pooled(judged)
    print_table(
        "all judging sets together",
        ("rule", *POOLED),
        [(name, *(f"{value:.1%}" for value in figures.values())) for name, figures in together.items()],
    )
    studies = n * len(sets) * len(rules)
    print(f"{studies:,} studies in {seconds:.0f} s, {60 * studies / seconds:,.0f} a minute")
    if arguments.figures:
        arguments.figures.mkdir(parents=True, exist_ok=True)
        panels = {one.curves.name: one.compared for one in judged}
        with figure_style():
            (arguments.figures / "rules.png").write_bytes(figure_bytes(draw_pruners(panels), "png"))
            (arguments.figures / "curves.png").write_bytes(figure_bytes(draw_curves(one_draw(sets)), "png"))
    write_json(arguments.json, {**to_json(judged, together), "studies_per_minute": 60 * studies / seconds})


if __name__ == "__main__":
    main()
