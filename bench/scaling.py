"""Question: do time and memory of an epoch grow as the needed arithmetic does?

    python bench/scaling.py [--quick] [--json FILE]

Measures one lane on 30 % of the samples for p = 31, 53, 113 and 197 and d = 128, 256 and 512.

The output has one row per size. With hidden quadratic costs, the share of the peak would fall as sizes grow, or the
memory would grow faster than samples times width.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from measuring import PEAK_GFLOP, make_parser, needed_gflop, parse_arguments, peak_workload, print_table, write_json

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey


def measure(p: int, d_model: int, rounds: int) -> dict[str, Any]:
    """Measure one lane of this size."""
    experiment = Experiment(p=p, evaluate_every=8)
    lanes = Lanes(ProgramKey.of(experiment, Hyperparameters(d_model=d_model)), batched=False)
    lane = lanes.admit(experiment, Hyperparameters(d_model=d_model))
    products, seconds, peaks = peak_workload(), list[float](), list[float]()
    evaluations = 1
    for k in range(rounds + 1):
        began = time.perf_counter()
        products()
        middle = time.perf_counter()
        rows = lanes.train_async(evaluations)
        took = time.perf_counter() - middle
        epochs = rows.evaluations(lane) * experiment.evaluation_interval
        if k:
            peaks.append(PEAK_GFLOP / (middle - began))
            seconds.append(took / epochs)
        elif took < 0.3:  # train small networks for longer, because short times are imprecise
            evaluations = min(int(0.5 / took) + 1, 100)
    epoch, needed = statistics.median(seconds), needed_gflop(experiment, d_model)
    return {
        "p": p,
        "d_model": d_model,
        "samples": experiment.n_train,
        "logits": sum(experiment.classes),
        "needed_gflop_per_epoch": needed,
        "seconds_per_epoch": epoch,
        "gflops": needed / epoch,
        "peak_share": statistics.median(needed / s / g for s, g in zip(seconds, peaks, strict=True)),
        "bytes": lanes.bytes_per_lane(),
    }


def main() -> None:
    arguments = parse_arguments(make_parser(__doc__, "measure p = 31 and 53, d = 128 and 256 only"))
    ps, widths, rounds = ((31, 53), (128, 256), 3) if arguments.quick else ((31, 53, 113, 197), (128, 256, 512), 5)
    rows = []
    for p in ps:
        for d_model in widths:
            rows.append(measure(p, d_model, rounds))
            print(f"p {p}, d {d_model}: {rows[-1]['seconds_per_epoch']:.4f} s per epoch", flush=True)
    print_table(
        "Cost as the work grows, one lane, 30 %",
        ["p", "d", "samples", "logits", "needed GFLOP", "s/epoch", "GFLOP/s", "% of peak", "MiB"],
        [
            [
                row["p"],
                row["d_model"],
                row["samples"],
                row["logits"],
                row["needed_gflop_per_epoch"],
                row["seconds_per_epoch"],
                row["gflops"],
                100 * row["peak_share"],
                round((row["bytes"] or 0) / 2**20),
            ]
            for row in rows
        ],
    )
    write_json(arguments.json, {"sizes": rows})


if __name__ == "__main__":
    main()
