"""Recorded learning curves of whole studies, and the compact file that holds them.

A curve keeps the evaluations at its study's rungs, and sixteen from each power of two to the next. Pruners and figures
need no others.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.config.overrides import to_tree, validate
from miiii_search.config.search_space import Point
from miiii_search.config.study_spec import StudySpec, rungs
from miiii_search.damaged_files import DAMAGED_FILE_ERRORS
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import mean_accuracy
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.history import History, history_at_rungs
from miiii_search.study.objective import objective

FORMAT = 1
"""Version of the file format."""

EVALUATIONS_PER_OCTAVE = 16
"""Number of evaluations kept from each power of two to the next."""

MANTISSA_BITS = 12
"""Bits of the mantissa of floats in a file, which is a relative error of 0.02 % and halves the size of the file."""


@dataclass(frozen=True)
class Curve:
    """The learning curve of one run, with at least one evaluation."""

    number: int
    """Number of the run's trial."""
    point: Point
    replicate: int
    experiment: Experiment
    record: Record
    """Some of the run's evaluations, including those at its rungs."""
    solved_epoch: int | None
    """First epoch of the successive evaluations that solved the run; None if it was not solved."""
    ended_epoch: int
    """Last recorded epoch. It is below the epoch budget if the run was stopped after it was solved, had a loss that was
    not finite, or was pruned."""
    failed: bool = False
    """Whether the run ended because its loss was not finite."""
    pruned: bool = False
    """Whether the run was pruned when it was recorded, so that the rest of its curve is unknown."""

    @cached_property
    def confirmed_epoch(self) -> int | None:
        """Epoch of the last of the evaluations that solve the run, at which the service stops it."""
        return None if self.solved_epoch is None else _confirmed_epoch(self.experiment, self.solved_epoch)

    @cached_property
    def last_epoch(self) -> int:
        """Epoch at which the run ends unless it is pruned. For a run recorded as pruned, the end of its budget."""
        if self.confirmed_epoch is not None:
            return self.confirmed_epoch
        return self.experiment.epochs if self.pruned else self.ended_epoch

    @cached_property
    def accuracy(self) -> dict[int, float]:
        """Mean validation accuracy over the scored tasks, by epoch."""
        values = (mean_accuracy(self.experiment, row) for row in self.record.validation_accuracy)
        return dict(zip(self.record.epoch.tolist(), values, strict=True))

    @cached_property
    def objective(self) -> float | None:
        """The study's objective if the run is not pruned; None if it failed."""
        if self.failed:
            return None
        last = max((epoch for epoch in self.accuracy if epoch <= self.last_epoch), default=None)
        return None if last is None else objective(self.experiment, self.accuracy[last], self.solved_epoch)

    @cached_property
    def history(self) -> History:
        """The run at its rungs, as a pruner sees it."""
        return history_at_rungs(self.experiment, self.record)


@dataclass(frozen=True)
class CurveSet:
    """The curves of one study, or a part of them."""

    name: str
    spec: StudySpec
    curves: tuple[Curve, ...]

    def subset(self, curves: Sequence[Curve], name: str | None = None) -> CurveSet:
        """Return a set of some of the curves, under another name if one is given."""
        return replace(self, name=name or self.name, curves=tuple(curves))


def make_curve(
    number: int,
    point: Point,
    replicate: int,
    experiment: Experiment,
    record: Record,
    *,
    failed_epoch: int | None = None,
    pruned: bool = False,
) -> Curve:
    """Return the curve of a run, and find out from its evaluations whether and when it was solved.

    Args:
        number: Number of the run's trial.
        point: Point of the search space.
        replicate: Replicate at this point, from 0.
        experiment: Settings of the run.
        record: All evaluations of the run. The curve keeps some of them, see `kept_epochs`.
        failed_epoch: Epoch at which the loss was not finite; None if it always was.
        pruned: Whether the run was pruned.
    """
    solved_epoch = find_solved_epoch(experiment, record)
    return Curve(
        number,
        point,
        replicate,
        experiment,
        record.rows(np.isin(record.epoch, kept_epochs(experiment, solved_epoch)) | (record.epoch == record.epoch[-1])),
        solved_epoch,
        failed_epoch or int(record.epoch[-1]),
        failed_epoch is not None,
        pruned,
    )


def kept_epochs(experiment: Experiment, solved_epoch: int | None) -> list[int]:
    """Return the epochs of the evaluations that a curve keeps.

    They are the rungs, the first evaluation at or after each of sixteen epochs per octave, and the end of a solved run.
    """
    octaves = 2.0 ** np.arange(int(np.log2(experiment.epochs)) + 1)
    wanted = np.outer(octaves, 1 + np.arange(EVALUATIONS_PER_OCTAVE) / EVALUATIONS_PER_OCTAVE).ravel()
    interval = experiment.evaluation_interval
    kept = {*(np.ceil(wanted / interval).astype(int) * interval).tolist(), *rungs(experiment)}
    return sorted(kept | ({_confirmed_epoch(experiment, solved_epoch)} if solved_epoch else set()))


def find_solved_epoch(experiment: Experiment, record: Record) -> int | None:
    """Return the first epoch of the successive evaluations that solve a run; None if it is not solved."""
    reached = record.validation_accuracy[:, np.asarray(experiment.scored)] > experiment.accuracy_threshold
    streak = 0
    for epoch, solved in zip(record.epoch.tolist(), np.all(reached, axis=1).tolist(), strict=True):
        streak = streak + 1 if solved else 0
        if streak == experiment.solved_evaluations:
            return int(epoch - (streak - 1) * experiment.evaluation_interval)
    return None


def write_curves(path: Path, sets: Sequence[CurveSet]) -> None:
    """Write sets of curves as one compressed NumPy archive. The same curves give the same bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    for curves in sets:
        meta = {
            "format": FORMAT,
            "spec": to_tree(curves.spec),
            "runs": [
                {
                    "number": curve.number,
                    "point": curve.point,
                    "replicate": curve.replicate,
                    "rows": len(curve.record),
                    "solved_epoch": curve.solved_epoch,
                    "ended_epoch": curve.ended_epoch,
                    "failed": curve.failed,
                    "pruned": curve.pruned,
                }
                for curve in curves.curves
            ],
        }
        arrays[f"{curves.name}/meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        record = Record.concatenate([curve.record for curve in curves.curves])
        for field in fields(Record):
            arrays[f"{curves.name}/{field.name}"] = round_floats(getattr(record, field.name))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), file.getvalue(), zipfile.ZIP_DEFLATED)


def read_curves(path: Path) -> list[CurveSet]:
    """Read a file that `write_curves` wrote.

    Raises:
        MiiiiSearchError: If the file cannot be read or has another format.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = [name.removesuffix("/meta") for name in archive.files if name.endswith("/meta")]
            found = [_read_set(archive, name) for name in names]
    except OSError as error:
        raise MiiiiSearchError(f"cannot read {path}: {error.strerror or error}") from None
    except MiiiiSearchError:
        raise
    except DAMAGED_FILE_ERRORS as error:
        raise MiiiiSearchError(f"{path} holds no curves of miiii-search: {error}") from None
    if not found:
        raise MiiiiSearchError(f"{path} holds no curves of miiii-search")
    return found


def _read_set(archive: Mapping[str, NDArray[Any]], name: str) -> CurveSet:
    meta = json.loads(archive[f"{name}/meta"].tobytes())
    if meta["format"] != FORMAT:
        raise ValueError(f"its format is {meta['format']}, but this version reads format {FORMAT}")
    spec = validate(StudySpec, meta["spec"], f"the spec of {name}")
    record = Record(**{field.name: archive[f"{name}/{field.name}"] for field in fields(Record)})
    return CurveSet(name, spec, tuple(_read_runs(spec, record, meta["runs"])))


def _read_runs(spec: StudySpec, record: Record, runs: Sequence[dict[str, Any]]) -> Iterator[Curve]:
    ends = list(itertools.accumulate(run.pop("rows") for run in runs))
    for run, start, end in zip(runs, [0, *ends], ends, strict=False):
        experiment, _ = spec.run_at(run["point"], run["replicate"])
        yield Curve(experiment=experiment, record=record.rows(slice(start, end)), **run)


def _confirmed_epoch(experiment: Experiment, solved_epoch: int) -> int:
    return solved_epoch + (experiment.solved_evaluations - 1) * experiment.evaluation_interval


def round_floats(array: NDArray[Any]) -> NDArray[Any]:
    """Round a float32 array to `MANTISSA_BITS`, so that it compresses better. Other arrays are returned as they are.

    0 and 1 are exact, and accuracies that differ by one sample stay distinct.
    """
    if array.dtype != np.float32:
        return array
    dropped = 23 - MANTISSA_BITS
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + np.uint32(1 << (dropped - 1))) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return np.where(np.isfinite(array), rounded.view(np.float32), array)
