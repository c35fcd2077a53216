"""Question: how many trials of Table 1 does a worker train per hour, and do two workers on one GPU train more?

    python bench/gpu_workers.py [--quick] [--small] [--json FILE]

Starts the command `work` on a study of Table 1 in a SQLite file, first one process and then two with half the lanes
each. Once all lanes are trained, the speed is what the workers report with their leases. The file is written after
each part.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.config.presets import get_preset
from miiii_search.config.study_sections import Pruning
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.spec import Experiment
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.study.status import StatusReader

WAIT_SECONDS = 50.0
"""Longest wait until all lanes are trained."""


@contextmanager
def workers(storage: str, study: str, n: int, lanes: int, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run worker processes, and stop them at the end."""
    arguments = ["--study", study, "--storage", storage, "--lanes", str(lanes)]
    processes = []
    for k in range(n):
        command = [sys.executable, "-m", "miiii_search", "work", *arguments, "--name", f"worker-{k}"]
        processes.append(subprocess.Popen([*command, "--checkpoints", str(folder / f"{study}-{k}")]))
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def measure(spec: StudySpec, n: int, lanes: int, seconds: float, patience: float = WAIT_SECONDS) -> dict[str, Any]:
    """Measure a number of workers.

    Args:
        spec: The study.
        n: Number of workers.
        lanes: Lanes of each worker.
        seconds: Duration of the measurement.
        patience: Longest wait until all lanes are trained, in seconds.

    Raises:
        RuntimeError: A worker has ended, or not all lanes were trained in time.
    """
    with tempfile.TemporaryDirectory() as scratch:
        storage = f"sqlite:///{scratch}/study.db"
        database = open_database(storage, create=True)
        study = create_study(database, f"workers-{n}", spec)
        reader, start = StatusReader(study), time.monotonic()
        with workers(storage, study.name, n, lanes, Path(scratch)) as processes:
            while sum(trial.epochs_per_second > 0 for trial in reader.read(0).running) < n * lanes:
                if any(process.poll() is not None for process in processes):
                    raise RuntimeError("a worker has ended before all lanes were trained")
                if time.monotonic() - start > patience:
                    raise RuntimeError(f"not all lanes were trained after {patience:.0f} s")
                time.sleep(0.5)
            until_trained, samples = time.monotonic() - start, []
            for _ in range(max(int(seconds), 1)):
                time.sleep(1)
                samples.append(reader.read(0).epochs_per_second)
        database.close()
    speed = statistics.median(samples)
    return {
        "workers": n,
        "lanes_each": lanes,
        "seconds_until_all_lanes_train": until_trained,
        "epochs_per_second": speed,
        "trials_per_hour": 3600 * speed / spec.experiment.epochs,
        "samples": samples,
    }


def main() -> None:
    options = make_parser(__doc__, "measure for five seconds each")
    options.add_argument("--small", action="store_true", help="tiny runs, to try the script on a CPU")
    arguments = parse_arguments(options)
    spec = get_preset("paper").spec.model_copy(update={"pruning": Pruning(rule="none")})
    lanes, seconds, patience = 32, 5.0 if arguments.quick else 15.0, WAIT_SECONDS
    if arguments.small:
        spec = spec.model_copy(update={"experiment": Experiment(p=11, epochs=10**7)})
        lanes, seconds, patience = 2, 2.0, 4 * WAIT_SECONDS
    rows = list[dict[str, Any]]()
    for n in (1, 2):
        try:
            rows.append(measure(spec, n, lanes // n, seconds, patience))
        except RuntimeError as error:
            rows.append({"workers": n, "lanes_each": lanes // n, "error": str(error)})
        write_json(arguments.json, {"workers": rows})
    print_table(
        "Table 1 through the command work",
        ["workers", "lanes each", "epochs/s", "trials/h", "s until all lanes train"],
        [[row["workers"], row["lanes_each"], *(row.get(name, "-") for name in COLUMNS)] for row in rows],
    )


COLUMNS = ("epochs_per_second", "trials_per_hour", "seconds_until_all_lanes_train")

if __name__ == "__main__":
    main()
