"""Trains named configurations for as long as it is given, and goes on where it stopped at the next call.

    python bench/reproduce.py --minutes 30 --folder DIR [NAME …]

Each configuration is one run of the service's own lanes. Its checkpoint and its record are written to DIR when
the time is up and every five minutes; a run that has ended is left as it is. Without names all are trained, each
for its share of the time; --list tells them. Afterwards, and with --report alone, a table says which tasks each
run reached, and when.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miiii_search.experiment.device import describe_device, package_versions, use_compilation_cache
from miiii_search.experiment.lanes import Lanes
from miiii_search.experiment.metrics import mean_accuracy
from miiii_search.experiment.pace import Pace
from miiii_search.experiment.program import ProgramKey
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.telemetry import Record
from miiii_search.search.presets import get_configuration

CHECKPOINT_SECONDS = 300


@dataclass(frozen=True)
class Configuration:
    """A run with a name, and what it is there to tell."""

    claim: str
    experiment: Experiment
    hyperparameters: Hyperparameters


def configurations() -> dict[str, Configuration]:
    """Every configuration that docs/reproduction.md speaks of."""
    paper, table_2 = get_configuration("paper", "paper-best")
    authors, _ = get_configuration("authors-code", "paper-best")
    fast, narrow = get_configuration("fast", None)
    # To see a run through to 65,536 epochs takes hours; where a run is cut off, its checkpoint goes on.
    return {
        "table-2": Configuration("Table 2 as printed: 30 %, a mask a sample", paper, table_2),
        "authors-code": Configuration("Table 2 as the public code has it: 50 %, one mask a batch", authors, table_2),
        "fast": Configuration("the preset `fast`", fast, narrow),
        "fast-lambda-0": Configuration("λ = 0 does not converge (4.1)", fast, _but(narrow, grokfast_lambda=0.0)),
        "fast-dropout-0": Configuration(
            "dropout 0 overfits all but q in {2, 3} (appendix C)", fast, _but(narrow, dropout=0.0)
        ),
        "fast-masked": Configuration(
            "without q = 2, 3, 5, 7 the others are harder (appendix A)", _on(fast, task="masked"), narrow
        ),
        "fast-basis": Configuration("permuted labels cannot generalise", _on(fast, task="basis"), narrow),
        "fast-batch-mask": Configuration(
            "one dropout mask a batch, as the public code", _on(fast, dropout_mask="batch"), narrow
        ),
        "fast-wide": Configuration("the paper's width, 256", fast, _but(narrow, d_model=256)),
    }


def _on(experiment: Experiment, **changes: object) -> Experiment:
    return experiment.model_copy(update=changes)


def _but(hyperparameters: Hyperparameters, **changes: object) -> Hyperparameters:
    return hyperparameters.model_copy(update=changes)


def train(name: str, configuration: Configuration, folder: Path, until: float) -> None:
    """Trains one configuration until the time `until`, from its checkpoint if there is one."""
    experiment, hyperparameters = configuration.experiment, configuration.hyperparameters
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters))
    checkpoint, records, seconds = folder / f"{name}.npz", list[Record](), 0.0
    snapshot: dict[str, Any] | None = None
    if checkpoint.exists():
        state = json.loads((folder / f"{name}.json").read_text())
        records, seconds = [Record.from_npz((folder / f"{name}.record.npz").read_bytes())], state["seconds"]
        if state["ended"]:
            return
        with np.load(checkpoint) as arrays:
            snapshot = dict(arrays)
    lane, pace = lanes.admit(experiment, hyperparameters, snapshot), Pace()
    saved = time.monotonic()
    while True:
        start = time.monotonic()
        with pace.measure(pace.evaluations):
            records.append(lanes.train(pace.evaluations)[lane])
        seconds += time.monotonic() - start
        progress = lanes.progress(lane)
        over = progress.ended or time.monotonic() > until
        if over or time.monotonic() - saved > CHECKPOINT_SECONDS:
            records, saved = [Record.concatenate(records)], time.monotonic()
            np.savez(checkpoint, allow_pickle=False, **lanes.snapshot(lane))
            (folder / f"{name}.record.npz").write_bytes(records[0].to_npz())
            accuracy = records[0].validation_accuracy[-1]
            state = {
                "configuration": {
                    "experiment": experiment.model_dump(),
                    "hyperparameters": hyperparameters.model_dump(),
                },
                "device": describe_device(),
                "versions": package_versions(),
                "epoch": progress.epoch,
                "seconds": round(seconds, 1),
                "ended": progress.ended,
                "solved_epoch": progress.solved_epoch,
                "validation_accuracy": dict(zip(map(str, experiment.moduli), map(float, accuracy), strict=True)),
            }
            (folder / f"{name}.json").write_text(json.dumps(state, indent=2) + "\n")
            mean = mean_accuracy(experiment, accuracy)
            print(f"{name}: epoch {progress.epoch:,}, {seconds:.0f} s, validation {mean:.3f}", flush=True)
        if over:
            return


def report(folder: Path) -> None:
    """The table of what is in the folder."""
    print(f"{'configuration':<28} {'epoch':>7} {'min':>6} {'train':>6} {'valid':>6} {'tasks at 1':>10}  solved at")
    for path in sorted(folder.glob("*.json")):
        state = json.loads(path.read_text())
        record = Record.from_npz(path.with_suffix(".record.npz").read_bytes())
        last = record.validation_accuracy[-1]
        reached = f"{int((last >= 1).sum())} of {len(last)}"
        print(
            f"{path.stem:<28} {state['epoch']:>7,} {state['seconds'] / 60:>6.1f} "
            f"{record.train_accuracy[-1].mean():>6.3f} {last.mean():>6.3f} {reached:>10}"
            f"  {state['solved_epoch'] or '-'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--minutes", type=float, default=10, help="how long to train in all (default 10)")
    parser.add_argument("--folder", type=Path, default=Path("reproduction"), help="checkpoints and records")
    parser.add_argument("--list", action="store_true", help="name the configurations and stop")
    parser.add_argument("--report", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()
    known = configurations()
    if arguments.list:
        for name, configuration in known.items():
            print(f"{name:<28} {configuration.claim}")
        return
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"there is no configuration {', '.join(unknown)}; --list tells them")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        use_compilation_cache()
        end = time.monotonic() + 60 * arguments.minutes
        names = arguments.names or list(known)
        for k, name in enumerate(names):
            share = (end - time.monotonic()) / (len(names) - k)
            if share > 0:
                train(name, known[name], arguments.folder, time.monotonic() + share)
    report(arguments.folder)


if __name__ == "__main__":
    main()
