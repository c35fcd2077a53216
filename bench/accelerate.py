"""Question: with which options of the training step does a network grok sooner, and does it hold over seeds?

    python bench/accelerate.py [--quick] [--runs DIR] [--methods NAME ...] [--seeds N] [--epochs N]
    python bench/accelerate.py --report [--runs DIR] [--json FILE]

The first form trains every method with every seed on all 29 tasks at p = 113, one run after another. The folder gets
one file per run. A run whose file is there is not trained again. The second form only reads the folder.

Each method changes one thing of a base configuration. None is tuned. So the table does not say which method is best:
for that, search over each method's own hyperparameters with the same budget.

The output has one row per method and seed. It has the epoch at which the run was solved, the epochs trained, and the
seconds with compilation. `tasks_at_099` is the number of tasks whose last validation accuracy is at least 0.99.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.run import train

BASE: dict[str, Any] = {"d_model": 128, "learning_rate": 1e-3, "weight_decay": 1.0, "grokfast_lambda": 0.5}

METHODS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"optimizer": "muon"},
    "lion": {"optimizer": "lion"},
    "adam_beta2": {"adam_beta2": 0.95},
    "temperature": {"temperature": 0.5},
    "stablemax": {"output": "stablemax"},
    "orthogonal": {"gradient_projection": "orthogonal"},
    "row_ceiling": {"weight_ceiling": "row"},
    "matrix_ceiling": {"weight_ceiling": "matrix"},
    "slow_embeddings": {"embedding_rate_factor": 0.3},
    "slow_unembedding": {"unembedding_rate_factor": 0.3},
    "freeze": {"freeze_embeddings": "solved"},
}
"""The hyperparameters in which each method differs from the base."""

FIELDS = ("method", "seed", "solved_epoch", "seconds", "epochs", "tasks_at_099")

NEARLY_SOLVED = 0.99


def train_method(method: str, experiment: Experiment, base: dict[str, Any]) -> dict[str, Any]:
    """Train one run, and return its row of the report."""
    hyperparameters = Hyperparameters.model_validate({**base, **METHODS[method]})
    start = time.monotonic()
    metrics = train(experiment, hyperparameters).metrics
    scored = [a for a, counts in zip(metrics.validation_accuracy, experiment.scored, strict=True) if counts]
    return {
        "method": method,
        "seed": experiment.seed,
        "solved_epoch": metrics.epochs_to_solve,
        "seconds": round(time.monotonic() - start, 1),
        "epochs": metrics.epochs_trained,
        "tasks_at_099": sum(accuracy >= NEARLY_SOLVED for accuracy in scored),
        "hyperparameters": hyperparameters.model_dump(),
    }


def train_all(folder: Path, methods: Iterable[str], seeds: int, experiment: Experiment, base: dict[str, Any]) -> None:
    """Train what the folder lacks. All methods have one seed before any has the next."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for method in methods:
            file = folder / f"{method}-{seed}.json"
            if not file.exists():
                row = train_method(method, experiment.model_copy(update={"seed": seed}), base)
                file.write_text(json.dumps(row, indent=2) + "\n")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all runs in the folder, by method and seed."""
    rows: list[dict[str, Any]] = [json.loads(file.read_text()) for file in folder.glob("*-*.json")]
    return sorted(rows, key=lambda row: (list(METHODS).index(row["method"]), row["seed"]))


def main() -> None:
    parser = make_parser(__doc__, "train nanda at p = 13 for 64 epochs, with one seed")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--runs", type=Path, default=Path("accelerate-runs"), help="folder of the runs")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each method")
    parser.add_argument("--epochs", type=int, default=8192, help="epochs after which an unsolved run stops")
    arguments = parse_arguments(parser)
    experiment, base, seeds = Experiment(train_fraction=0.5, epochs=arguments.epochs), BASE, arguments.seeds
    if arguments.quick:
        experiment = Experiment(p=13, task="nanda", train_fraction=0.5, epochs=64)
        base, seeds = {**BASE, "d_model": 16, "n_heads": 2}, 1
    if not arguments.report:
        train_all(arguments.runs, arguments.methods, seeds, experiment, base)
    rows = read_rows(arguments.runs)
    shown = [["-" if row[name] is None else row[name] for name in FIELDS] for row in rows]
    print_table("Options of the training step", FIELDS, shown)
    write_json(arguments.json, {"runs": rows})


if __name__ == "__main__":
    main()
