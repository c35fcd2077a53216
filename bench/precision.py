"""Question: do networks grok equally fast if matrix products are less precise?

    python bench/precision.py [--quick] [--json FILE]

Trains the demo's best configuration (nanda, p = 31) from several seeds in each precision. A CPU computes all of them in
float32, and then they do not differ.

The output has one row per precision, with the number of solved runs and the epochs at which they were solved. The
default stays float32 until a search's own device shows that another precision is as good.
"""

from __future__ import annotations

import statistics
from typing import Any, Literal, get_args

from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.config.presets import get_configuration
from miiii_search.experiment.spec import Experiment
from miiii_search.training.lane_functions import MAX_EVALUATIONS
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey

Precision = Literal["float32", "tf32", "bf16"]


def epochs_to_solve(precision: Precision, seeds: int) -> list[int | None]:
    """Return the epoch at which each seed is solved, all trained in lanes of one program."""
    experiment, hyperparameters = get_configuration("demo", "demo-best")
    experiment = Experiment(**experiment.model_dump() | {"precision": precision, "epochs": 8192})
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters))
    runs = [lanes.admit(experiment.model_copy(update={"seed": seed}), hyperparameters) for seed in range(seeds)]
    while not all(lanes.progress(lane).ended for lane in runs):
        lanes.train_async(MAX_EVALUATIONS)
    return [lanes.progress(lane).solved_epoch for lane in runs]


def main() -> None:
    arguments = parse_arguments(make_parser(__doc__, "train two seeds instead of 16"))
    results: dict[str, Any] = {p: epochs_to_solve(p, 2 if arguments.quick else 16) for p in get_args(Precision)}
    rows = []
    for precision, epochs in results.items():
        solved = sorted(e for e in epochs if e is not None)
        rows.append([precision, f"{len(solved)} of {len(epochs)}", *_spread(solved)])
    print_table("Epochs to solve, demo-best", ["precision", "solved", "first", "median", "last"], rows)
    write_json(arguments.json, {"epochs_to_solve": results})


def _spread(solved: list[int]) -> list[object]:
    return [solved[0], statistics.median(solved), solved[-1]] if solved else ["-", "-", "-"]


if __name__ == "__main__":
    main()
