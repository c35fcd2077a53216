"""What it costs to know: evaluation at every epoch and at the default, and looks at log-spaced epochs.

    python bench/telemetry.py [--quick] [--json FILE]

In turn and in one process: epochs that only train (with the gradient filter and dropout, and nothing recorded), the
same with an evaluation every 16 epochs and at every epoch (validation, per-task training loss and accuracy, the norms
of every gradient and every matrix), and a look (spectrum of the neurons over the whole grid, snapshot of the weights).
"""

from __future__ import annotations

import statistics
from typing import Any

import jax
from measuring import Run, alternate, median_ratio, parser, print_table, start, wait_for, write

from miiii_search.experiment.record import FIRST_SNAPSHOT_EPOCH
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program, ProgramKey

EPOCHS = 32
"""In one call, about a second, as long as the service trains between two looks of the host."""


def only_training(experiment: Experiment, hyperparameters: Hyperparameters) -> Run:
    """`EPOCHS` epochs whose losses, accuracies and norms nobody asks for, so that the compiler leaves them out."""
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


def recording(every: int, hyperparameters: Hyperparameters) -> Run:
    """`EPOCHS` epochs as the service trains them, and what was recorded, on the host."""
    experiment = Experiment(evaluate_every=every)
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters), batched=False)
    lane = lanes.admit(experiment, hyperparameters)

    def run() -> None:
        lanes.train(EPOCHS // every)[lane]

    return run


def looking(hyperparameters: Hyperparameters) -> Run:
    """One look, on the host."""
    experiment = Experiment()
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters), batched=False)
    lane = lanes.admit(experiment, hyperparameters)

    def run() -> None:
        lanes.spectrum(lane)
        lanes.weights(lane)

    return run


def measure(d_model: int, rounds: int) -> dict[str, Any]:
    """Costs as shares of the training alone."""
    hyperparameters = Hyperparameters(d_model=d_model)
    seconds = alternate(
        {
            "training": only_training(Experiment(), hyperparameters),
            "every 16": recording(16, hyperparameters),
            "every epoch": recording(1, hyperparameters),
            "look": looking(hyperparameters),
        },
        rounds,
    )
    epoch = statistics.median(seconds["training"]) / EPOCHS
    look = statistics.median(seconds["look"])
    # Looks at 256, 512, 1,024 … epochs: at most this share of the training, at the worst moment and at 65,536 epochs.
    share = {
        epochs: sum(1 for k in range(8, 17) if 2**k <= epochs) * look / (epochs * epoch)
        for epochs in (512, 4096, 65536)
    }
    return {
        "d_model": d_model,
        "seconds_per_epoch": epoch,
        "look_seconds": look,
        "cost_at_default": median_ratio(seconds["every 16"], seconds["training"]) - 1,
        "cost_at_every_epoch": median_ratio(seconds["every epoch"], seconds["training"]) - 1,
        "cost_of_looks": share,
        "first_look": FIRST_SNAPSHOT_EPOCH,
        "seconds_of_each_run": seconds,
    }


def main() -> None:
    arguments = start(parser(__doc__, "d = 256 only, five rounds"))
    results = [measure(d, 5 if arguments.quick else 15) for d in ([256] if arguments.quick else [256, 128])]
    print_table(
        "The cost of telemetry, p = 113, 30 %, % of training alone",
        ["d", "s/epoch alone", "every 16 epochs", "every epoch", "s a look", "looks by 512", "by 4,096", "by 65,536"],
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
    write(arguments.json, {"widths": results})


if __name__ == "__main__":
    main()
