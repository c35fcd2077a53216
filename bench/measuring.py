"""Shared by the benchmarks: options, alternating measurements, tables, and a description of the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from miiii_search.experiment.spec import Experiment
from miiii_search.training.device import describe_device, package_versions, use_compilation_cache

Workload = Callable[[], None]
"""Does a fixed amount of work, and returns when it is done."""

PEAK_SIZE = 2048
"""Rows and columns of the matrices whose products measure the peak."""

PEAK_PRODUCTS = 8
PEAK_GFLOP = PEAK_PRODUCTS * 2 * PEAK_SIZE**3 / 1e9


def make_parser(description: str | None, quick: str) -> ArgumentParser:
    """Return a parser with the options of every benchmark.

    Args:
        description: Text above the options, usually the docstring of the module.
        quick: Help text of `--quick`.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    return parser


def parse_arguments(parser: ArgumentParser) -> Namespace:
    """Return the arguments of the command, and use the cache of compiled programs."""
    arguments = parser.parse_args()
    use_compilation_cache()
    return arguments


def wait_for(result: Any) -> None:
    """Wait until the arrays of a result are computed."""
    for leaf in jax.tree.leaves(result):
        leaf.block_until_ready()


def describe_machine() -> dict[str, Any]:
    """Return the device, the processor, the load of other work, and the versions of packages."""
    return {
        "device": describe_device(),
        "processor": _processor(),
        "load": os.getloadavg(),
        "versions": package_versions(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def time_alternately(runs: Mapping[str, Workload], rounds: int) -> dict[str, list[float]]:
    """Time workloads in turn, A B C A B C …, so that all see the same changes of the machine's load.

    Args:
        runs: Workloads by name.
        rounds: Number of measurements of each, after one that does not count.

    Returns:
        Seconds of each measurement, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if k:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median of the ratios of each round, whose two measurements follow each other."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def peak_workload() -> Workload:
    """Return a workload of large float32 matrix products, `PEAK_GFLOP` of arithmetic, which measures the peak."""
    a = jax.random.normal(jax.random.PRNGKey(0), (PEAK_SIZE, PEAK_SIZE)) / PEAK_SIZE**0.5

    def products(a: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            last: jax.Array = jax.lax.fori_loop(0, PEAK_PRODUCTS, lambda _, b: a @ b, a)
        return last

    compiled = jax.jit(products)
    return lambda: wait_for(compiled(a))


def needed_gflop(experiment: Experiment, d_model: int) -> float:
    """Return the GFLOP of one epoch that every way to train needs: products forward, and twice that backward.

    Three parts are computed at the last position of every training sample: the feed-forward layers (d to 4d to d), the
    unembedding (d to Σq) and the output projection of the heads (d to d). The tables of values over p tokens and two
    positions are computed once per epoch.
    """
    n, p, d = experiment.n_train, experiment.p, d_model
    return 3 * (2 * n * d * (9 * d + sum(experiment.classes)) + 2 * 2 * p * d * d) / 1e9


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table with a line about the machine. Columns are as wide as their contents."""
    texts = [[f"{v:,.4g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(len(h), *(len(row[k]) for row in texts)) for k, h in enumerate(header)]
    about = describe_machine()
    print(f"\n{title}")
    print(f"{about['device']}, {about['processor']}, jax {about['versions']['jax']}, load {about['load'][0]:.1f}")
    for line in [list(header), *texts]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures and a description of the machine as JSON, unless the path is None."""
    if path is not None:
        path.write_text(json.dumps({**figures, "machine": describe_machine()}, indent=2) + "\n")
