"""Question: do networks grok equally fast if matrix products are less precise?

    python bench/precision.py [--quick] [--json FILE]

Trains the demo's best configuration (nanda, p = 31) from several seeds in each precision. A CPU computes all of them in
float32, and then they do not differ.

The output has one row per precision, with the number of solved runs and the epochs at which they were solved. The
file also has the learning curves: mean validation accuracy and loss at each evaluation, of every run. It is written
after each precision. The default stays float32 until a search's own device shows that another precision is as good.
"""

from __future__ import annotations

import statistics
from typing import Any, Literal, get_args

from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.config.presets import get_configuration
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.training.lane_functions import MAX_EVALUATIONS
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey

Precision = Literal["float32", "tf32", "bf16"]


def learning_curves(precision: Precision, seeds: int, epochs: int) -> list[dict[str, Any]]:
    """Return the epoch at which each seed is solved and its curves, all trained in lanes of one program."""
    experiment, hyperparameters = get_configuration("demo", "demo-best")
    experiment = Experiment(**experiment.model_dump() | {"precision": precision, "epochs": epochs})
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters))
    runs = [lanes.admit(experiment.model_copy(update={"seed": seed}), hyperparameters) for seed in range(seeds)]
    records: dict[int, list[Record]] = {lane: [] for lane in runs}
    while not all(lanes.progress(lane).ended for lane in runs):
        for lane, record in lanes.train(MAX_EVALUATIONS).items():
            records[lane].append(record)
    return [_curve(lanes.progress(lane).solved_epoch, Record.concatenate(records[lane])) for lane in runs]


def _curve(solved_epoch: int | None, record: Record) -> dict[str, Any]:
    return {
        "solved_epoch": solved_epoch,
        "epoch": record.epoch.tolist(),
        "validation_accuracy": record.validation_accuracy.mean(1).round(5).tolist(),
        "validation_loss": record.validation_loss.mean(1).round(5).tolist(),
    }


def main() -> None:
    options = make_parser(__doc__, "train two seeds instead of 16")
    options.add_argument("--small", action="store_true", help="a few epochs of two seeds, to try the script")
    arguments = parse_arguments(options)
    seeds, epochs = (2 if arguments.quick or arguments.small else 16), (96 if arguments.small else 8192)
    curves: dict[str, list[dict[str, Any]]] = {}
    solved_epochs: dict[str, list[int | None]] = {}
    rows = []
    for precision in get_args(Precision):
        curves[precision] = learning_curves(precision, seeds, epochs)
        solved_epochs[precision] = [curve["solved_epoch"] for curve in curves[precision]]
        solved = sorted(e for e in solved_epochs[precision] if e is not None)
        rows.append([precision, f"{len(solved)} of {seeds}", *_spread(solved)])
        write_json(arguments.json, {"epochs_to_solve": solved_epochs, "curves": curves})
    print_table("Epochs to solve, demo-best", ["precision", "solved", "first", "median", "last"], rows)


def _spread(solved: list[int]) -> list[object]:
    return [solved[0], statistics.median(solved), solved[-1]] if solved else ["-", "-", "-"]


if __name__ == "__main__":
    main()
