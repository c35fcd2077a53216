"""What the benchmarks share: alternating runs, tables, and a word on the machine."""

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

Run = Callable[[], None]
"""Does a fixed piece of work and waits for its end."""

PEAK_SIZE = 2048
PEAK_PRODUCTS = 8
PEAK_GFLOP = PEAK_PRODUCTS * 2 * PEAK_SIZE**3 / 1e9


def parser(description: str | None, quick: str) -> ArgumentParser:
    """The options of every benchmark."""
    options = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help=quick)
    options.add_argument("--json", type=Path, help="where to write the figures")
    return options


def start(options: ArgumentParser) -> Namespace:
    """The options as given. Programs that were compiled before are not compiled again."""
    arguments = options.parse_args()
    use_compilation_cache()
    return arguments


def wait_for(result: Any) -> None:
    """Until it is computed."""
    for leaf in jax.tree.leaves(result):
        leaf.block_until_ready()


def machine() -> dict[str, Any]:
    """What was measured on, and what else ran there."""
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


def alternate(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, in turn A B C A B C …, after one of each that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if k:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over rounds, each of which saw the same machine."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def peak() -> Run:
    """Large products of float32 matrices: `PEAK_GFLOP` of arithmetic."""
    a = jax.random.normal(jax.random.PRNGKey(0), (PEAK_SIZE, PEAK_SIZE)) / PEAK_SIZE**0.5

    def products(a: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            last: jax.Array = jax.lax.fori_loop(0, PEAK_PRODUCTS, lambda _, b: a @ b, a)
        return last

    compiled = jax.jit(products)
    return lambda: wait_for(compiled(a))


def needed_gflop(experiment: Experiment, d_model: int) -> float:
    """The arithmetic of one epoch that no way to train can avoid: products forward, and twice that backward.

    The feed-forward (d to 4d to d), the unembedding (d to Σq) and the heads' output projection (d to d), at the
    last position of every training sample, and the tables of values over p tokens and two positions.
    """
    n, p, d = experiment.n_train, experiment.p, d_model
    return 3 * (2 * n * d * (9 * d + sum(experiment.moduli)) + 2 * 2 * p * d * d) / 1e9


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table in columns that fit."""
    texts = [[f"{v:,.4g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(len(h), *(len(row[k]) for row in texts)) for k, h in enumerate(header)]
    about = machine()
    print(f"\n{title}")
    print(f"{about['device']}, {about['processor']}, jax {about['versions']['jax']}, load {about['load'][0]:.1f}")
    for line in [list(header), *texts]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def write(path: Path | None, figures: Mapping[str, Any]) -> None:
    """The figures and the machine, as JSON."""
    if path is not None:
        path.write_text(json.dumps({**figures, "machine": machine()}, indent=2) + "\n")
