"""Question: for how much of a study's time does the device compute, and what does a second start compile?

    python bench/refill.py [--quick] [--json FILE] [--figure FILE]

The service's worker trains a study of 32 short trials in a database of its own. Lanes end at different times and are
refilled; trials are reported, and their figures drawn and written, while others train. The worker runs twice, each time
in a new process and on a new study. Both share a compilation cache that is empty at first.

The output has one row per start, with the number of compiled programs and the seconds to the first chunk of training.
"% computing" is the share of the time in which at least one lane trained.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure
from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.config.study_sections import Budget, Pruning
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.training.trainer_messages import ChunkTiming
from miiii_search.worker.worker import Worker

SPACE: dict[str, Any] = {
    "dropout": (0.0, 0.05, 0.1, 0.2),
    "weight_decay": (0.1, 0.3, 0.5, 1.0),
    "grokfast_lambda": (0.0, 0.5),
}


def run_worker(folder: Path, name: str, trials: int, epochs: int, p: int) -> dict[str, Any]:
    """Train a study to its end, and return when the device computed, in seconds since the worker's start."""
    compiled = 0

    def count(event: str, **_: object) -> None:
        nonlocal compiled
        compiled += event == "/jax/compilation_cache/cache_misses"

    jax.monitoring.register_event_listener(count)
    experiment = Experiment(p=p, train_fraction=0.5, epochs=epochs, evaluate_every=16)
    spec = StudySpec(
        experiment=experiment,
        hyperparameters=Hyperparameters(d_model=128, learning_rate=1e-3),
        space=SPACE,
        budget=Budget(trials=trials),
        pruning=Pruning(rule="none"),
    )
    database = open_database(f"sqlite:///{folder / name}.db", create=True)
    study = create_study(database, "refill", spec)
    chunks: list[ChunkTiming] = []
    began = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="  %(message)s", stream=sys.stdout)
    Worker(study, None, on_chunk=chunks.append).run(threading.Event())
    seconds = time.monotonic() - began
    assert study.is_done()
    database.close()
    return {
        "trials": trials,
        "epochs_a_trial": epochs,
        "seconds": seconds,
        "compiled": compiled,
        "chunks": sorted((chunk.start - began, chunk.end - began, chunk.lanes) for chunk in chunks),
    }


def computing(chunks: list[tuple[float, float, int]]) -> tuple[float, float, float]:
    """Return three times in seconds.

    Args:
        chunks: (start, end, lanes) of each chunk of training, sorted.

    Returns:
        First, the time from the start of the first chunk to the end of the last. Second, the time during which any lane
        trained. Third, the sum of the durations of all chunks.
    """
    first, last = chunks[0][0], max(end for _, end, _ in chunks)
    busy, until = 0.0, first
    for begin, end, _ in chunks:
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return last - first, busy, sum(end - begin for begin, end, _ in chunks)


def draw(chunks: list[tuple[float, float, int]], path: Path) -> None:
    """Draw the chunks against time. Chunks that overlap are in different rows."""
    figure = Figure(figsize=(9, 1.8), layout="constrained")
    axes = figure.subplots()
    free_at: list[float] = []
    for begin, end, _ in chunks:
        row = next((k for k, at in enumerate(free_at) if at <= begin + 1e-6), len(free_at))
        free_at[row : row + 1] = [end]
        axes.broken_barh(
            [(begin, end - begin)], (row - 0.4, 0.8), facecolor="tab:blue", edgecolor="white", linewidth=0.3
        )
    axes.set(xlabel="seconds since the worker's start", yticks=range(len(free_at)), ylabel="at once")
    figure.savefig(path, dpi=150)


def main() -> None:
    options = make_parser(__doc__, "train 8 trials of 256 epochs")
    options.add_argument("--figure", type=Path, metavar="FILE", help="draw the timeline of the second start as a PNG")
    options.add_argument("--small", action="store_true", help="train 4 trials of 64 epochs at p = 11")
    options.add_argument(
        "--worker",
        nargs=2,
        metavar=("FOLDER", "NAME"),
        help="for the script's own two processes",
    )
    arguments = parse_arguments(options)
    trials, epochs = (4, 64) if arguments.small else (8, 256) if arguments.quick else (32, 512)
    p = 11 if arguments.small else 53
    if arguments.worker:
        folder, name = Path(arguments.worker[0]), arguments.worker[1]
        (folder / f"{name}.json").write_text(json.dumps(run_worker(folder, name, trials, epochs, p)))
        return
    results: dict[str, Any] = {}
    sizes = [option for option, given in (("--quick", arguments.quick), ("--small", arguments.small)) if given]
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("first", "second"):
            print(f"{name} start", flush=True)
            subprocess.run(
                [sys.executable, __file__, *sizes, "--worker", scratch, name],
                env={**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{scratch}/cache"},
                check=True,
            )
            results[name] = json.loads((Path(scratch) / f"{name}.json").read_text())
    rows = []
    for name, result in results.items():
        span, busy, of_lanes = computing(result["chunks"])
        result |= {
            "computing_share": busy / span,
            "lanes_computing": of_lanes / span,
            "until_first": result["chunks"][0][0],
        }
        rows.append(
            [
                name,
                result["compiled"],
                result["until_first"],
                span,
                100 * busy / span,
                of_lanes / span,
                result["seconds"],
            ]
        )
    print_table(
        f"{trials} trials of {epochs} epochs, p = {p}, d = 128",
        ["start", "compiled", "s to first chunk", "s training", "% computing", "lanes computing", "s in all"],
        rows,
    )
    if arguments.figure:
        draw(results["second"]["chunks"], arguments.figure)
    write_json(arguments.json, results)


if __name__ == "__main__":
    main()
