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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from miiii_search.experiment.device import describe_device, package_versions, use_compilation_cache
from miiii_search.experiment.lanes import Lanes
from miiii_search.experiment.metrics import mean_accuracy
from miiii_search.experiment.pace import Pace
from miiii_search.experiment.program import ProgramKey
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.telemetry import Record
from miiii_search.search.presets import get_configuration

CHECKPOINT_SECONDS = 300

REACHED = 0.99
"""A task's validation accuracy from which the table counts it as learned."""


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
    wide, best = get_configuration("narrow", "narrow-best")
    half = _on(wide, train_fraction=0.5)
    base = _but(best, d_model=128, dropout=0.1)
    return {
        "table-2": Configuration("Table 2 as printed: 30 %, a mask a sample", paper, table_2),
        "authors-code": Configuration("Table 2 as the public code has it: 50 %, one mask a batch", authors, table_2),
        "fast": Configuration("the preset `fast`: all 29 tasks on two cores", *get_configuration("fast", None)),
        "narrow-best": Configuration("the best of constant hyperparameters, on 70 %", wide, best),
        "search-best": Configuration(
            "the best of the search over 18 configurations: 80 %, λ = 2",
            _on(wide, train_fraction=0.8, epochs=65536),
            _but(best, d_model=128, dropout=0.1, grokfast_lambda=2.0),
        ),
        "most-samples": Configuration(
            "narrow-best on 90 % of the samples: stands at 0.73 until dropout falls",
            _on(wide, train_fraction=0.9, validation_samples=600, epochs=65536),
            best,
        ),
        "base": Configuration("what the claims below are tried on: 50 %, d = 128", half, base),
        "lambda-0": Configuration("λ = 0 does not converge (4.1)", half, _but(base, grokfast_lambda=0.0)),
        "dropout-0": Configuration(
            "dropout 0 overfits all but q in {2, 3} (appendix C)", half, _but(base, dropout=0.0)
        ),
        "masked": Configuration("the others without q = 2, 3, 5, 7 (appendix A)", _on(half, task="masked"), base),
        "basis": Configuration("permuted labels cannot generalise", _on(half, task="basis"), base),
        "batch-mask": Configuration("one dropout mask a batch", _on(half, dropout_mask="batch"), base),
        "wide": Configuration("the paper's width, 256", half, _but(base, d_model=256)),
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
    print(f"{'configuration':<16} {'epoch':>7} {'min':>6} {'train':>6} {'valid':>6}  reached at (q: epoch)")
    for name, state, record in results(folder):
        moduli = [int(q) for q in state["validation_accuracy"]]
        reached = record.validation_accuracy >= REACHED
        first = {q: int(record.epoch[reached[:, k].argmax()]) for k, q in enumerate(moduli) if reached[:, k].any()}
        means = (getattr(record, f"{split}_accuracy")[-1].mean() for split in ("train", "validation"))
        print(
            f"{name:<16} {state['epoch']:>7,} {state['seconds'] / 60:>6.1f} {next(means):>6.3f} {next(means):>6.3f}  "
            + ", ".join(f"{q}: {epoch:,}" for q, epoch in first.items())
        )


def results(folder: Path) -> Iterator[tuple[str, dict[str, Any], Record]]:
    """Name, state and record of every configuration in the folder."""
    for path in sorted(folder.glob("*.json")):
        record = Record.from_npz(path.with_suffix(".record.npz").read_bytes())
        yield path.stem, json.loads(path.read_text()), record


def draw(folder: Path, path: Path) -> None:
    """Mean validation accuracy of every configuration in the folder against the epoch, as a PNG."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for k, (name, _, record) in enumerate(results(folder)):
        style = "-" if k < 10 else "--"  # there are ten colours
        axes.plot(record.epoch, record.validation_accuracy.mean(axis=1), style, label=name, linewidth=1.3)
    axes.set(xscale="log", xlabel="epoch", ylabel="validation accuracy, mean over tasks", ylim=(0, 1), xlim=(64, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--minutes", type=float, default=10, help="how long to train in all (default 10)")
    parser.add_argument("--folder", type=Path, default=Path("reproduction"), help="checkpoints and records")
    parser.add_argument("--list", action="store_true", help="name the configurations and stop")
    parser.add_argument("--figure", type=Path, help="where to draw the curves of all that is in the folder, as a PNG")
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
    if arguments.figure:
        draw(arguments.folder, arguments.figure)


if __name__ == "__main__":
    main()
