"""Question: what do evaluations and weight snapshots cost?

    python bench/telemetry.py [--quick] [--json FILE]

Times four workloads in turn:

- epochs that only train, with dropout and the gradient filter but without records;
- the same with an evaluation every 16 epochs, which is the default;
- the same with an evaluation at every epoch;
- a weight snapshot.

An evaluation records validation, per-task training loss and accuracy, and the norms of all gradients and matrices. A
snapshot computes the spectrum of the neurons over the whole grid and copies the weights.

The output has costs in % of training alone. Snapshots are taken at 256, 512, 1,024, ... epochs; the last three columns
are their total cost by the end of 512, 4,096 and 65,536 epochs.
"""

from __future__ import annotations

import statistics
from typing import Any

import jax
from measuring import (
    Workload,
    make_parser,
    median_ratio,
    parse_arguments,
    print_table,
    time_alternately,
    wait_for,
    write_json,
)

from miiii_search.experiment.record import FIRST_SNAPSHOT_EPOCH
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program, ProgramKey

EPOCHS = 32
"""Epochs per workload: about a second, as long as the service trains without returning to the host."""


def only_training(experiment: Experiment, hyperparameters: Hyperparameters) -> Workload:
    """Return a workload of `EPOCHS` epochs without records, which the compiler removes because they are not used."""
    program = Program(ProgramKey.of(experiment, hyperparameters))
    state = program.init(experiment, hyperparameters)
    loop = jax.jit(
        lambda state, data: jax.lax.scan(lambda s, _: (program.step(s, *data)[0], None), state, length=EPOCHS)[0],
        donate_argnums=0,
    )
    compiled = loop.lower(state, program.data["train"]).compile()

    def run() -> None:
        nonlocal state
        state = compiled(state, program.data["train"])
        wait_for(state)

    return run


def recording(every: int, hyperparameters: Hyperparameters) -> Workload:
    """Return a workload of `EPOCHS` epochs as the service trains them, with their records copied to the host."""
    experiment = Experiment(evaluate_every=every)
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters), batched=False)
    lane = lanes.admit(experiment, hyperparameters)

    def run() -> None:
        lanes.train(EPOCHS // every)[lane]

    return run


def taking_snapshot(hyperparameters: Hyperparameters) -> Workload:
    """Return a workload of one weight snapshot, copied to the host."""
    experiment = Experiment()
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters), batched=False)
    lane = lanes.admit(experiment, hyperparameters)

    def run() -> None:
        lanes.spectrum(lane)
        lanes.weights(lane)

    return run


def measure(d_model: int, rounds: int) -> dict[str, Any]:
    """Measure costs as shares of training alone."""
    hyperparameters = Hyperparameters(d_model=d_model)
    seconds = time_alternately(
        {
            "training": only_training(Experiment(), hyperparameters),
            "every 16": recording(16, hyperparameters),
            "every epoch": recording(1, hyperparameters),
            "snapshot": taking_snapshot(hyperparameters),
        },
        rounds,
    )
    epoch = statistics.median(seconds["training"]) / EPOCHS
    snapshot = statistics.median(seconds["snapshot"])
    # Snapshots at 256, 512, 1,024, ... epochs. Their share is largest at 512 epochs.
    share = {
        epochs: sum(1 for k in range(8, 17) if 2**k <= epochs) * snapshot / (epochs * epoch)
        for epochs in (512, 4096, 65536)
    }
    return {
        "d_model": d_model,
        "seconds_per_epoch": epoch,
        "look_seconds": snapshot,
        "cost_at_default": median_ratio(seconds["every 16"], seconds["training"]) - 1,
        "cost_at_every_epoch": median_ratio(seconds["every epoch"], seconds["training"]) - 1,
        "cost_of_looks": share,
        "first_look": FIRST_SNAPSHOT_EPOCH,
        "seconds_of_each_run": seconds,
    }


def main() -> None:
    arguments = parse_arguments(make_parser(__doc__, "measure d = 256 only, in five rounds"))
    results = [measure(d, 5 if arguments.quick else 15) for d in ([256] if arguments.quick else [256, 128])]
    print_table(
        "The cost of telemetry, p = 113, 30 %, % of training alone",
        [
            "d",
            "s/epoch alone",
            "every 16 epochs",
            "every epoch",
            "s/snapshot",
            "all by 512",
            "by 4,096",
            "by 65,536",
        ],
        [
            [
                r["d_model"],
                r["seconds_per_epoch"],
                100 * r["cost_at_default"],
                100 * r["cost_at_every_epoch"],
                r["look_seconds"],
                *(100 * cost for cost in r["cost_of_looks"].values()),
            ]
            for r in results
        ],
    )
    write_json(arguments.json, {"widths": results})


if __name__ == "__main__":
    main()
