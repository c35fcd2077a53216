"""Question: how do throughput and memory depend on the number of lanes?

    python bench/lanes.py [--quick] [--json FILE] [--figure FILE]

Measures both widths of Table 1. On a CPU each lane is a thread, as in the service, and as many train at the same time
as there are cores. On a GPU all lanes are one batched program.

The output has one row per width and number of lanes: epochs per second of all lanes together, and their ratio to one
lane measured right before and after. Memory is what the compiler reports for one lane while it trains.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.autotune import device_memory
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program, ProgramKey
from miiii_search.training.trainer_messages import RunRequest, RunUpdate
from miiii_search.training.trainer_pool import TrainerPool

LANES = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of lanes."""

MIN_UPDATES = 3
"""Minimum number of updates per lane in a measurement."""

PRECISIONS = ("float32", "tf32", "bf16")


def bytes_per_lane(program: Program, lanes: int) -> int | None:
    """Return the memory of one lane of a compiled program in bytes; None if the device does not tell."""
    batched = jax.default_backend() != "cpu"
    measured = Lanes(program.key, batched, program)
    for _ in range(lanes if batched else 1):
        measured.admit(
            program.key.experiment, Hyperparameters(d_model=program.key.d_model, n_heads=program.key.n_heads)
        )
    measured.prepare(lanes)
    return measured.bytes_per_lane()


def throughput(experiment: Experiment, hyperparameters: Hyperparameters, lanes: int, seconds: float) -> float:
    """Return the epochs per second of all lanes together, once each of them has started.

    The measurement lasts at least `seconds` and a minimum number of updates. Batched lanes report together, so it ends
    with a complete batch. Otherwise lanes have unreported epochs at both ends, at most one update per core.
    """
    batched = jax.default_backend() != "cpu"
    enough = MIN_UPDATES * (lanes if batched or lanes == 1 else 8)
    trainers = TrainerPool()
    trainers.admit([RunRequest(k, experiment.model_copy(update={"seed": k}), hyperparameters) for k in range(lanes)])
    begun, first, last, updates, epochs = set[int](), 0.0, 0.0, 0, dict[int, int]()
    while not first or last - first < seconds or updates < enough or (batched and updates % lanes):
        update = trainers.events.get()
        if isinstance(update, BaseException):
            raise update
        assert isinstance(update, RunUpdate)
        last, updates = time.monotonic(), updates + bool(first)
        begun.add(update.run)
        if len(begun) == lanes and not first:
            first, at_first = last, dict(epochs) | {update.run: update.progress.epoch}
        epochs[update.run] = update.progress.epoch
    trainers.close(60)
    return sum(epochs[k] - at_first.get(k, 0) for k in epochs) / (last - first)


def measure(d_model: int, precision: Any, widths: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """Measure one width at one precision, and return one row per number of lanes."""
    experiment = Experiment(precision=precision)
    hyperparameters = Hyperparameters(d_model=d_model)
    program = Program(ProgramKey.of(experiment, hyperparameters))
    limit, rows = device_memory(), list[dict[str, Any]]()
    before = throughput(experiment, hyperparameters, 1, seconds)
    for lanes in widths:
        size = bytes_per_lane(program, lanes)
        if limit and size and lanes * size > 0.9 * limit:
            break
        speed = before if lanes == 1 else throughput(experiment, hyperparameters, lanes, seconds)
        after = before if lanes == 1 else throughput(experiment, hyperparameters, 1, seconds)
        vs_one_lane, before = speed / statistics.mean([before, after]), after
        rows.append(
            {
                "d_model": d_model,
                "precision": precision,
                "lanes": lanes,
                "epochs_per_second": speed,
                "vs_one_lane": vs_one_lane,
                "bytes_per_lane": size,
            }
        )
        print(f"d {d_model}, {precision}, {lanes} lanes: {speed:,.1f} epochs/s, {vs_one_lane:.2f} x one", flush=True)
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw throughput against the number of lanes."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for d_model, precision in sorted({(row["d_model"], row["precision"]) for row in rows}):
        of_shape = [row for row in rows if (row["d_model"], row["precision"]) == (d_model, precision)]
        axes.plot(
            [row["lanes"] for row in of_shape],
            [row["epochs_per_second"] for row in of_shape],
            marker="o",
            label=f"d = {d_model}, {precision}",
        )
    axes.set(xscale="log", xticks=LANES, xlabel="lanes", ylabel="epochs per second, all lanes", ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    options = make_parser(__doc__, "measure 1, 2 and 4 lanes, for a few seconds each")
    options.add_argument("--figure", type=Path, metavar="FILE", help="draw throughput against lanes as a PNG")
    options.add_argument(
        "--widths", type=int, nargs="+", help=f"numbers of lanes (default {' '.join(map(str, LANES))})"
    )
    arguments = parse_arguments(options)
    gpu = jax.default_backend() != "cpu"
    widths, seconds = ((1, 2, 4), 4.0) if arguments.quick else (LANES, 3.0 if gpu else 8.0)
    widths = arguments.widths or widths
    rows = []
    for d_model in (128, 256):
        rows += measure(d_model, "float32", widths, seconds)
        # A CPU computes all of them in float32.
        for precision in PRECISIONS[1:] if gpu else ():
            rows += measure(d_model, precision, (1, 32), seconds)
    header = ["d", "precision", "lanes", "epochs/s", "x one lane", "MiB/lane", "trials/h"]
    print_table(
        "Lanes, p = 113, 4 heads, 30 %, an evaluation every 16 epochs; trials of 65,536 epochs",
        header,
        [
            [
                row["d_model"],
                row["precision"],
                row["lanes"],
                row["epochs_per_second"],
                row["vs_one_lane"],
                round((row["bytes_per_lane"] or 0) / 2**20),
                3600 * row["epochs_per_second"] / Experiment().epochs,
            ]
            for row in rows
        ],
    )
    if arguments.figure:
        draw(rows, arguments.figure)
    write_json(arguments.json, {"lanes": rows})


if __name__ == "__main__":
    main()
