"""Question: how soon does a study find its best configuration, depending on the sampler?

    python bench/samplers.py --json FILE --figure FILE
    python bench/samplers.py --shapes

Compares the shuffled queue, TPE, and expected improvement. Studies are replayed on recorded curves: one seed of every
configuration, in a shuffled order, the same for all three. With --shapes, the cost of preferring compiled shapes is
measured instead.

The first table has the epochs of all lanes until the best run of a study is completed, and the shares that samplers
save. The second table has the same for one of the best tenth of the runs.

All studies of a set have the same few configurations. The intervals say how precise a mean over these studies is. They
say nothing about other search spaces.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.analysis.figures.style import OKABE_ITO, PAGE_WIDTH, figure_bytes, figure_style, new_figure
from miiii_search.config.study_sections import Pruning
from miiii_search.config.study_spec import StudySpec
from miiii_search.simulation.curves import Curve, CurveSet, read_curves
from miiii_search.simulation.orders import ORDERS, GridEIOrder
from miiii_search.simulation.pruner_variants import PrunerVariant
from miiii_search.simulation.replay import ReplayedRun
from miiii_search.simulation.scoring import draw_studies, ground_truth
from miiii_search.simulation.search_speed import RelativeSaving, SearchResult, relative_saving, replay_searches

CURVES = Path(__file__).parent / "curves" / "bank.npz"
LANES = (1, 4, 8)
RULES = (PrunerVariant("none"), PrunerVariant("forecast", pruning=Pruning(rule="forecast")))
"""Pruners, neither of which compares runs."""

MIN_CONFIGURATIONS = 12
"""Minimum number of configurations of a set. In smaller sets the order hardly matters."""

DRAWN = ("none", 4)
"""Pruner and number of lanes of the figure."""

LINES = ((OKABE_ITO[0], "-"), (OKABE_ITO[1], "--"), (OKABE_ITO[2], "-"))
"""Colours and styles of the samplers in the figure, chosen so that lines that coincide stay visible."""

Setting = tuple[str, str, int]
"""Set, pruner and number of lanes."""

SHAPES = ("learning_rate", "grokfast_lambda")
"""Dimensions that stand for the shape of a network. No recorded set has two shapes."""

SHAPE_FACTORS = (1.0, 1.5, 2.0, 4.0, 1e9)
"""Factors for the expected improvement of compiled shapes. With the last, all runs of a shape come before others."""

AIMS = {"best": "the best run", "good": "one of the best tenth"}
"""Fields of a `SearchResult`, and their descriptions."""


def measure(curves: CurveSet, n: int) -> dict[Setting, dict[str, list[SearchResult]]]:
    """Replay `n` studies of a set with each pruner, number of lanes and sampler."""
    studies, results = draw_studies(curves, n), {}
    for rule, lanes in itertools.product(RULES, LANES):
        results[curves.name, rule.name, lanes] = {
            name: replay_searches(make, rule, curves.spec, studies, lanes) for name, make in ORDERS.items()
        }
    return results


def spent(found: Sequence[SearchResult], aim: str) -> list[float]:
    """Return the epochs of all lanes in each study until a run of this kind was completed; infinity if none was."""
    return [getattr(one, aim).total_epochs for one in found]


def compare(orders: Mapping[str, Sequence[SearchResult]], aim: str) -> dict[str, RelativeSaving]:
    """Compare TPE and expected improvement with the queue, and expected improvement with TPE."""
    values = {name: spent(found, aim) for name, found in orders.items()}
    pairs = {"tpe": ("tpe", "grid"), "grid_ei": ("grid_ei", "grid"), "grid_ei to tpe": ("grid_ei", "tpe")}
    return {name: relative_saving(values[a], values[b]) for name, (a, b) in pairs.items()}


def figures(orders: Mapping[str, Sequence[SearchResult]], aim: str) -> dict[str, Any]:
    """Return the median and the 90 % interval of each sampler, and their comparisons, for the JSON file."""
    of_orders: dict[str, Any] = {}
    for name, searched in orders.items():
        found = [getattr(one, aim) for one in searched]
        of_orders[name] = {
            "found": sum(math.isfinite(one.total_epochs) for one in found) / len(found),
            "epochs": _quantiles([one.total_epochs for one in found]),
            "wall_epochs": _quantiles([one.wall_epochs for one in found]),
        }
    return {"orders": of_orders, "saved": {name: asdict(one) for name, one in compare(orders, aim).items()}}


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return the median and the 90 % interval. None stands for infinity, if no run was found."""
    ordered = sorted(values)
    at = {name: ordered[round(share * (len(ordered) - 1))] for name, share in _SHARES.items()}
    return {name: value if math.isfinite(value) else None for name, value in at.items()}


_SHARES = {"low": 0.05, "median": 0.5, "high": 0.95}


def rows(results: Mapping[Setting, Mapping[str, Sequence[SearchResult]]], aim: str) -> list[list[object]]:
    """Return one row per setting: thousands of epochs that the queue spends, and % that the others save."""
    table: list[list[object]] = []
    for (name, rule, lanes), orders in results.items():
        queue = _quantiles(spent(orders["grid"], aim))
        low, median, high = ("never" if value is None else f"{value / 1000:,.0f}" for value in queue.values())
        reached = np.isfinite(spent(orders["grid"], aim)).mean()
        saved = [_percent(one) for one in compare(orders, aim).values()]
        table.append([name, rule, lanes, f"{reached:.0%}", f"{median} ({low} to {high})", *saved])
    return table


def _percent(one: RelativeSaving) -> str:
    return f"{100 * one.mean:.0f} ({100 * one.low:.0f} to {100 * one.high:.0f})" if one.pairs else ""


def verdicts(results: Mapping[Setting, Mapping[str, Sequence[SearchResult]]]) -> dict[str, dict[str, Any]]:
    """Count, for each comparison, the settings whose interval is on one side of 0, and find the smallest saving."""
    found: dict[str, dict[str, Any]] = {}
    for aim, description in AIMS.items():
        compared = [compare(orders, aim) for orders in results.values()]
        for name in ("tpe", "grid_ei", "grid_ei to tpe"):
            changes = [one[name] for one in compared if one[name].pairs]
            found[f"{name}, {description}"] = {
                "settings": len(changes),
                "better": sum(one.low > 0 for one in changes),
                "worse": sum(one.high < 0 for one in changes),
                "least_saved": min((one.mean for one in changes), default=math.nan),
            }
    return found


def measure_shapes(curves: CurveSet, n: int) -> list[list[object]]:
    """Return one row per dimension and number of lanes: the saving until the best run, and changes of shape."""
    studies, rule, table = draw_studies(curves, n), RULES[1], list[list[object]]()
    for shape, lanes in itertools.product([name for name in SHAPES if name in curves.spec.space], (1, 8)):
        queue = [one.best.total_epochs for one in replay_searches(ORDERS["grid"], rule, curves.spec, studies, lanes)]
        row: list[object] = [curves.name, shape, lanes]
        for shape_factor in SHAPE_FACTORS:
            changes: list[int] = []
            make = partial(_ShapeChanges, shape, shape_factor, changes)
            found = replay_searches(make, rule, curves.spec, studies, lanes)
            saved = relative_saving([one.best.total_epochs for one in found], queue)
            row.append(f"{saved.mean:.0%}, {len(changes) / n:.1f} changes")
        table.append(row)
    return table


class _ShapeChanges(GridEIOrder):
    """Counts the runs that start with a shape that no running run has."""

    def __init__(
        self, shape: str, shape_factor: float, changes: list[int], spec: StudySpec, curves: Sequence[Curve], seed: int
    ) -> None:
        super().__init__(curves, shape, shape_factor)
        self._changes = changes

    def next_run(self, waiting: Sequence[int], ended: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        known = {self._shapes[k] for k in [*running, self._last]}
        k = super().next_run(waiting, ended, running)
        self._changes += [k] * (self._shapes[k] not in known)
        return k


def draw(results: Mapping[Setting, Mapping[str, Sequence[SearchResult]]], epochs: Mapping[str, int]) -> Figure:
    """Draw the share of studies that have found their best run, against epochs spent. One panel per set."""
    panels = {name: orders for (name, *setting), orders in results.items() if tuple(setting) == DRAWN}
    figure = new_figure(PAGE_WIDTH, 2.4)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for one, (name, orders) in zip(axes, panels.items(), strict=True):
        for (color, style), (order, found) in zip(LINES, orders.items(), strict=True):
            values = np.sort(spent(found, "best"))
            values = np.append(values[np.isfinite(values)], epochs[name])
            share = np.append(np.arange(1, len(values)), len(values) - 1) / len(found)
            one.step([0, *values], [0, *share], where="post", color=color, linestyle=style, label=order)
        one.set(title=name, xlabel="epochs of all lanes", xlim=(0, epochs[name]), ylim=(0, 1.02))
        one.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:,.0f}k"))
        one.yaxis.set_major_formatter(PercentFormatter(1))
        one.grid(alpha=0.25, linewidth=0.5)
    axes[0].set_ylabel("studies that have found the best")
    axes[-1].legend(loc="lower right")
    return figure


def main() -> None:
    options = make_parser(__doc__, "draw 25 studies of each set")
    options.add_argument("--figure", type=Path, metavar="FILE", help="draw the shares of studies as a PNG")
    options.add_argument("--shapes", action="store_true", help="measure only the cost of preferring compiled shapes")
    options.add_argument(
        "--curves", type=Path, default=CURVES, metavar="FILE", help="recorded curves (default %(default)s)"
    )
    options.add_argument("--draws", type=int, metavar="N", help="studies of each set (default 200)")
    arguments = parse_arguments(options)
    n = arguments.draws or (25 if arguments.quick else 200)
    results: dict[Setting, dict[str, list[SearchResult]]] = {}
    epochs: dict[str, int] = {}
    for curves in read_curves(arguments.curves):
        [first] = draw_studies(curves, 1)
        if len(first) < MIN_CONFIGURATIONS:
            print(f"{curves.name}: only {len(first)} configurations, left out", flush=True)
            continue
        print(f"{curves.name}: {len(first)} configurations, {len(curves.curves)} runs", flush=True)
        if arguments.shapes:
            names = [f"factor {shape_factor:g}" for shape_factor in SHAPE_FACTORS]
            print_table("Saved until the best run", ["set", "shape", "lanes", *names], measure_shapes(curves, n))
            continue
        epochs[curves.name] = ground_truth(first).epochs
        results |= measure(curves, n)
    if arguments.shapes:
        return
    header = ["set", "rule", "lanes", "found", "queue, thousand epochs", "% TPE saves", "% EI saves", "EI to TPE"]
    for aim, words in AIMS.items():
        print_table(f"Epochs until {words} is completed; {n} studies per set", header, rows(results, aim))
    print()
    for name, one in verdicts(results).items():
        print(
            f"{name}: better in {one['better']} and worse in {one['worse']} of {one['settings']} settings, "
            f"saves {one['least_saved']:.0%} at least"
        )
    if arguments.figure and results:
        with figure_style():
            arguments.figure.write_bytes(figure_bytes(draw(results, epochs), "png"))
    write_json(
        arguments.json,
        {
            "draws": n,
            "samplers": [
                {"set": name, "rule": rule, "lanes": lanes, **{aim: figures(orders, aim) for aim in AIMS}}
                for (name, rule, lanes), orders in results.items()
            ],
            "verdicts": verdicts(results),
        },
    )


if __name__ == "__main__":
    main()
