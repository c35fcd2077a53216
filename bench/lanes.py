"""Many lanes: throughput and memory against their number, for both widths of Table 1.

    python bench/lanes.py [--quick] [--json FILE] [--figure FILE]

On a CPU the lanes are trained as the service does it, a thread a lane and as many at once as there are cores; on a
GPU they are one batched program. Each number of lanes is compared with one lane trained right before and after it.
Memory is the compiler's account of one lane while it trains.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from measuring import parser, print_table, start, write

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.autotune import device_memory
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program, ProgramKey
from miiii_search.training.trainer_messages import RunRequest, RunUpdate
from miiii_search.training.trainer_pool import TrainerPool

WIDTHS = (1, 2, 4, 8, 16, 32, 64)
FEWEST_UPDATES = 3
PRECISIONS = ("float32", "tf32", "bf16")


def bytes_per_lane(program: Program, lanes: int) -> int | None:
    """Of one of so many lanes."""
    batched = jax.default_backend() != "cpu"
    measured = Lanes(program.key, batched, program)
    for _ in range(lanes if batched else 1):
        measured.admit(
            program.key.experiment, Hyperparameters(d_model=program.key.d_model, n_heads=program.key.n_heads)
        )
    measured.prepare(lanes)
    return measured.bytes_per_lane()


def throughput(experiment: Experiment, hyperparameters: Hyperparameters, lanes: int, seconds: float) -> float:
    """Epochs a second of all lanes together, once every one of them has begun.

    Measured from one update to another, for so many seconds and so many updates at least. Batched lanes are in step,
    and are measured to the end of one; of others what is under way at both ends is not known, and is at most one
    update a core.
    """
    batched = jax.default_backend() != "cpu"
    enough = FEWEST_UPDATES * (lanes if batched or lanes == 1 else 8)
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
    """A row a number of lanes."""
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
    """Throughput against the number of lanes."""
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
    axes.set(xscale="log", xticks=WIDTHS, xlabel="lanes", ylabel="epochs a second, all lanes", ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    options = parser(__doc__, "1, 2 and 4 lanes, a few seconds each")
    options.add_argument("--figure", type=Path, help="where to draw throughput against the number of lanes, as a PNG")
    options.add_argument(
        "--widths", type=int, nargs="+", help=f"numbers of lanes (default {' '.join(map(str, WIDTHS))})"
    )
    arguments = start(options)
    gpu = jax.default_backend() != "cpu"
    widths, seconds = ((1, 2, 4), 4.0) if arguments.quick else (WIDTHS, 3.0 if gpu else 8.0)
    widths = arguments.widths or widths
    rows = []
    for d_model in (128, 256):
        rows += measure(d_model, "float32", widths, seconds)
        # A CPU computes all of them in float32.
        for precision in PRECISIONS[1:] if gpu else ():
            rows += measure(d_model, precision, (1, 32), seconds)
    header = ["d", "precision", "lanes", "epochs/s", "x one lane", "MiB a lane", "trials/h"]
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
    write(arguments.json, {"lanes": rows})


if __name__ == "__main__":
    main()
