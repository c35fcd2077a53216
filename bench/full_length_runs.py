"""The runs that are compared with the paper. They are trained in pieces and resumed from checkpoints.

`bench/reproduce.py` is the command line for this module. The folder of a run is also one that `miiii-search analyze`
reads.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from miiii_search.config.presets import get_configuration
from miiii_search.experiment.metrics import mean_accuracy, summarize
from miiii_search.experiment.record import (
    Floats,
    Record,
    WeightSnapshot,
    next_snapshot_epoch,
    spectra_from_npz,
    write_snapshot,
)
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.runs.run_folder import CONFIG, METRICS, RECORD, SNAPSHOTS, WEIGHTS
from miiii_search.study.export import Configuration
from miiii_search.training.chunk_size import ChunkSizer
from miiii_search.training.device import describe_device, package_versions
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey

CHECKPOINT_SECONDS = 300
"""Seconds between two checkpoints."""

CHECKPOINT, STATE = "checkpoint.npz", "state.json"


@dataclass(frozen=True)
class FullLengthRun:
    """A run, and the claim of the paper that it checks.

    Attributes:
        claim: The claim, with its section in the paper.
        experiment: Settings of the run.
        hyperparameters: Hyperparameters of the run.
        until: Epoch at which the run stops unless it is solved before, or the name of another run: this run then stops
            at the epoch at which the other was solved. None for the end of its budget.
    """

    claim: str
    experiment: Experiment
    hyperparameters: Hyperparameters
    until: int | str | None = None


def runs() -> dict[str, FullLengthRun]:
    """Return every run of docs/research/reproduction.md, in the order in which they are trained."""
    printed, table_2 = get_configuration("paper", "paper-best")
    authors, authors_run = get_configuration("authors-code", "paper-best")

    def authors_with(**changes: object) -> Experiment:
        return authors.model_copy(update=changes)

    return {
        "authors-code": FullLengthRun(
            "Table 2 as the authors ran it: all 29 tasks generalise (4)", authors, authors_run
        ),
        "table-2": FullLengthRun("Table 2 as printed: 30 %, a mask per sample, our initialisation", printed, table_2),
        "table-2-public-init": FullLengthRun(
            "Table 2 as printed, with the authors' initialisation",
            printed.model_copy(update={"initialisation": "public-code"}),
            table_2,
        ),
        "lambda-0": FullLengthRun(
            "λ = 0 does not converge (4.1)",
            authors,
            authors_run.model_copy(update={"grokfast_lambda": 0.0}),
            until="authors-code",
        ),
        "dropout-0": FullLengthRun(
            "dropout 0 overfits all but q in {2, 3} (appendix C)",
            authors,
            authors_run.model_copy(update={"dropout": 0.0}),
            until=20_000,
        ),
        "masked": FullLengthRun(
            "the others generalise without q = 2, 3, 5, 7 (appendix A)",
            authors_with(task="masked"),
            authors_run,
            until="authors-code",
        ),
        "basis": FullLengthRun(
            "permuted labels cannot be generalised (3.1)", authors_with(task="basis"), authors_run, until=8192
        ),
        "fast": FullLengthRun("the preset `fast`: all 29 tasks in under an hour", *get_configuration("fast", None)),
    }


def last_epoch(run: FullLengthRun, folder: Path) -> int:
    """Return the epoch at which a run stops unless it is solved before."""
    if run.until is None:
        return run.experiment.epochs
    if isinstance(run.until, int):
        return run.until
    other = read_state(folder / run.until)
    return (other and other["solved_epoch"]) or run.experiment.epochs


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state that `train` has written in a run's folder; None if the run has not started."""
    path = folder / STATE
    state: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return state


def train(name: str, run: FullLengthRun, folder: Path, stop: Callable[[], bool]) -> None:
    """Train a run until it ends or `stop()` is true, from its checkpoint if there is one.

    Args:
        name: Name of the run, which is also the name of its folder.
        run: The run.
        folder: Folder of all runs.
        stop: Called after each piece of the run.
    """
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    experiment, last = run.experiment, last_epoch(run, folder)
    lanes = Lanes(ProgramKey.of(experiment, run.hyperparameters))
    records, spectra, seconds, snapshot = list[Record](), dict[int, Floats](), 0.0, None
    if state := read_state(own):
        if state["ended"] or state["epoch"] >= last:
            return
        data, seconds = (own / RECORD).read_bytes(), state["seconds"]
        with np.load(own / CHECKPOINT) as arrays:
            snapshot = dict(arrays)
        epoch = int(snapshot["epoch"])
        record = Record.from_npz(data)
        if int(record.epoch[-1]) != epoch:
            raise SystemExit(
                f"{own}: the record ends at {record.epoch[-1]}, the checkpoint at {epoch}; remove the folder"
            )
        records, spectra = [record], spectra_from_npz(data)
    lane, chunk_sizer = lanes.admit(experiment, run.hyperparameters, snapshot), ChunkSizer()
    saved, next_snapshot = time.monotonic(), next_snapshot_epoch(experiment, lanes.progress(lane).epoch)
    while True:
        progress = lanes.progress(lane)
        ahead = int(min(next_snapshot, last)) - progress.epoch
        evaluations = max(1, min(chunk_sizer.evaluations, ahead // experiment.evaluation_interval))
        start = time.monotonic()
        with chunk_sizer.measure(evaluations):
            records.append(lanes.train(evaluations)[lane])
        seconds += time.monotonic() - start
        progress = lanes.progress(lane)
        over = progress.ended or progress.epoch >= last
        if over or progress.epoch >= next_snapshot:
            weight_snapshot = WeightSnapshot(progress.epoch, lanes.spectrum(lane), lanes.weights(lane))
            spectra[weight_snapshot.epoch] = weight_snapshot.spectrum
            write_snapshot(own / SNAPSHOTS, weight_snapshot)
            next_snapshot = next_snapshot_epoch(experiment, progress.epoch)
        stopped = stop()
        if over or stopped or time.monotonic() - saved > CHECKPOINT_SECONDS:
            records, saved = [Record.concatenate(records)], time.monotonic()
            _write(own, run, lanes, lane, records[0], spectra, seconds, over)
            mean = mean_accuracy(experiment, records[0].validation_accuracy[-1])
            print(f"{name}: epoch {progress.epoch:,}, {seconds:,.0f} s, validation {mean:.3f}", flush=True)
        if over or stopped:
            return


def _write(
    folder: Path,
    run: FullLengthRun,
    lanes: Lanes,
    lane: int,
    record: Record,
    spectra: dict[int, Floats],
    seconds: float,
    ended: bool,
) -> None:
    """Write a run's folder as `miiii-search train` would, with its checkpoint and its state."""
    progress, weights = lanes.progress(lane), lanes.weights(lane)
    experiment = run.experiment
    metrics = summarize(experiment, record, progress.solved_epoch, lanes.final_metrics(lane), weights)
    provenance = {
        "completed": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": describe_device(),
        "seconds": round(seconds, 1),
        "versions": package_versions(),
    }
    configuration = Configuration(experiment, run.hyperparameters, metrics, provenance)
    state = {
        "claim": run.claim,
        **provenance,
        "epoch": progress.epoch,
        "ended": ended,
        "solved_epoch": progress.solved_epoch,
    }
    arrays = folder / f"{CHECKPOINT}.new.npz"
    np.savez(arrays, allow_pickle=False, **lanes.state(lane))
    files = {
        RECORD: record.to_npz(spectra, moduli=np.asarray(experiment.task_moduli)),
        WEIGHTS: save(weights),
        METRICS: (metrics.model_dump_json(indent=2, exclude_none=True) + "\n").encode(),
        CONFIG: configuration.to_toml().encode(),
        STATE: (json.dumps(state, indent=2) + "\n").encode(),
    }
    for name, data in files.items():
        (folder / f"{name}.new").write_bytes(data)
    # All files are complete before the first one is replaced, so that a full disk leaves a run that can be resumed.
    os.replace(arrays, folder / CHECKPOINT)
    for name in files:
        os.replace(folder / f"{name}.new", folder / name)
