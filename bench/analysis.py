"""Question: how long does an analysis take, and how much memory does it need?

    python bench/analysis.py [--quick] [--json FILE]

Measures `miiii-search analyze` and `compare` on a run as long as the paper's. The run has the shape of Table 2
(p = 113, d = 256, 29 tasks), but is trained for a few epochs only. Its weights stand for all nine snapshots of 65,536
epochs, and its record is repeated to as many evaluations. The cost of an analysis depends on sizes only.

The output has the median seconds and the peak memory of each command, each a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from measuring import make_parser, parse_arguments, print_table, write_json
from safetensors.numpy import save

from miiii_search.experiment.record import Record, WeightSnapshot, write_snapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.runs.run_folder import CONFIG, RECORD, SNAPSHOTS, WEIGHTS
from miiii_search.study.export import Configuration
from miiii_search.training import run

SHORT = 32
LONG = Experiment()


def make_run(folder: Path) -> None:
    """Write a folder with a run, as `miiii-search train` does."""
    snapshots: list[WeightSnapshot] = []
    result = run.train(
        LONG.model_copy(update={"epochs": SHORT, "evaluate_every": 1}), Hyperparameters(), on_snapshot=snapshots.append
    )
    epochs = np.arange(LONG.evaluation_interval, LONG.epochs + 1, LONG.evaluation_interval, dtype=np.int32)
    rows = {
        f.name: np.resize(getattr(result.record, f.name), _shape(result.record, f.name, epochs)) for f in fields(Record)
    }
    record = Record(**{**rows, "epoch": epochs})
    spectra = {2**k: snapshots[-1].spectrum for k in range(8, 17)}
    folder.mkdir()
    (folder / CONFIG).write_text(Configuration(LONG, Hyperparameters(), None, {}).to_toml(), encoding="utf-8")
    (folder / RECORD).write_bytes(record.to_npz(spectra))
    (folder / WEIGHTS).write_bytes(save(result.weights))
    for epoch in spectra:
        write_snapshot(folder / SNAPSHOTS, WeightSnapshot(epoch, snapshots[-1].spectrum, result.weights))


def _shape(record: Record, name: str, epochs: np.ndarray[Any, Any]) -> tuple[int, ...]:
    return (len(epochs), *getattr(record, name).shape[1:])


def measure(arguments: list[str]) -> tuple[float, float]:
    """Run a command, and return its seconds and its peak memory in MB."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "miiii_search", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1000


def main() -> None:
    options = parse_arguments(make_parser(__doc__, quick="run each command once instead of three times"))
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "run", Path(scratch) / "out"
        make_run(folder)
        commands = {
            "analyze": ["analyze", str(folder), "--out", str(out)],
            "compare, two runs": ["compare", str(folder), str(folder), "--out", str(out / "compare")],
        }
        figures = {}
        for name, arguments in commands.items():
            measured = [measure(arguments) for _ in range(1 if options.quick else 3)]
            seconds, megabytes = sorted(measured)[len(measured) // 2]
            figures[name] = {"seconds": seconds, "megabytes": megabytes}
        size = sum(path.stat().st_size for path in out.iterdir() if path.is_file()) / 1e6
    print_table(
        "Analysis of a run of 65,536 epochs, p = 113, d = 256, nine snapshots",
        ["command", "seconds", "MB of memory"],
        [[name, *one.values()] for name, one in figures.items()],
    )
    print(f"analyze wrote {size:.1f} MB")
    write_json(options.json, {"commands": figures, "megabytes_written": size})


if __name__ == "__main__":
    main()
