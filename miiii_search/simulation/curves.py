"""Recorded learning curves of whole studies, and the small file that holds them.

A curve is kept at its study's rungs and at sixteen evaluations from each power of two to the next, which is what any
rule looks at and all that a picture shows.
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
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import mean_accuracy
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.history import History, history_at_rungs
from miiii_search.study.objective import objective

FORMAT = 1

AN_OCTAVE = 16
"""Evaluations that are kept from each power of two to the next."""

MANTISSA_BITS = 12
"""Of the floats in a file: 0.02 %, and half the size."""


@dataclass(frozen=True)
class Curve:
    """One run as it was recorded, of one evaluation at least."""

    number: int
    """Of its trial."""
    point: Point
    replicate: int
    experiment: Experiment
    record: Record
    """Some of its evaluations, those at rungs among them."""
    solved_epoch: int | None
    """The first epoch of the streak that solved it."""
    ended_epoch: int
    """The last that is known: its budget, or before it that of a streak that solved it, of a loss that was not finite,
    or of a rule that gave it up."""
    failed: bool = False
    """Whether its loss was not finite then."""
    pruned: bool = False
    """Whether it was given up then, so that nobody knows how it would have gone on."""

    @cached_property
    def solving_epoch(self) -> int | None:
        """The evaluation at which the service knows that it is solved, and stops it."""
        return None if self.solved_epoch is None else _solving_epoch(self.experiment, self.solved_epoch)

    @cached_property
    def last_epoch(self) -> int:
        """At which it ends if nobody gives it up; of one that was, the end of its budget, since nobody knows."""
        if self.solving_epoch is not None:
            return self.solving_epoch
        return self.experiment.epochs if self.pruned else self.ended_epoch

    @cached_property
    def accuracy(self) -> dict[int, float]:
        """Mean validation accuracy over the scored tasks at the epochs that are kept."""
        values = (mean_accuracy(self.experiment, row) for row in self.record.validation_accuracy)
        return dict(zip(self.record.epoch.tolist(), values, strict=True))

    @cached_property
    def objective(self) -> float | None:
        """The study's objective if nobody gives it up; None if it failed."""
        if self.failed:
            return None
        last = max((epoch for epoch in self.accuracy if epoch <= self.last_epoch), default=None)
        return None if last is None else objective(self.experiment, self.accuracy[last], self.solved_epoch)

    @cached_property
    def history(self) -> History:
        """What a rule sees of it, at its rungs."""
        return history_at_rungs(self.experiment, self.record)


@dataclass(frozen=True)
class CurveSet:
    """The curves of one study, or some of them."""

    name: str
    spec: StudySpec
    curves: tuple[Curve, ...]

    def subset(self, curves: Sequence[Curve], name: str | None = None) -> CurveSet:
        """Some of the curves."""
        return replace(self, name=name or self.name, curves=tuple(curves))


def make_curve(
    number: int,
    point: Point,
    replicate: int,
    experiment: Experiment,
    record: Record,
    failed_epoch: int | None = None,
    pruned: bool = False,
) -> Curve:
    """A curve from every evaluation of its run, thinned; whether and when it was solved is read from them."""
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
    """The rungs, the first evaluation at or after each of sixteen epochs an octave, and the end of a solved run."""
    octaves = 2.0 ** np.arange(int(np.log2(experiment.epochs)) + 1)
    wanted = np.outer(octaves, 1 + np.arange(AN_OCTAVE) / AN_OCTAVE).ravel()
    interval = experiment.evaluation_interval
    kept = {*(np.ceil(wanted / interval).astype(int) * interval).tolist(), *rungs(experiment)}
    return sorted(kept | ({_solving_epoch(experiment, solved_epoch)} if solved_epoch else set()))


def find_solved_epoch(experiment: Experiment, record: Record) -> int | None:
    """The first epoch of the evaluations in a row that solve a run, given all of them; None if there are none."""
    reached = record.validation_accuracy[:, np.asarray(experiment.scored)] > experiment.accuracy_threshold
    streak = 0
    for epoch, solved in zip(record.epoch.tolist(), np.all(reached, axis=1).tolist(), strict=True):
        streak = streak + 1 if solved else 0
        if streak == experiment.solved_evaluations:
            return int(epoch - (streak - 1) * experiment.evaluation_interval)
    return None


def write_curves(path: Path, sets: Sequence[CurveSet]) -> None:
    """Writes sets of curves as one compressed NumPy archive, the same bytes for the same curves."""
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
    """Reads what `write_curves` wrote. Raises `MiiiiSearchError` if it is no such file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = [name.removesuffix("/meta") for name in archive.files if name.endswith("/meta")]
            found = [_read_set(archive, name) for name in names]
    except OSError as error:
        raise MiiiiSearchError(f"cannot read {path}: {error.strerror or error}") from None
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise MiiiiSearchError(f"{path} holds no curves of miiii-search: {error}") from None
    if not found:
        raise MiiiiSearchError(f"{path} holds no curves of miiii-search")
    return found


def _read_set(archive: Mapping[str, NDArray[Any]], name: str) -> CurveSet:
    meta = json.loads(archive[f"{name}/meta"].tobytes())
    if meta["format"] != FORMAT:
        raise ValueError(f"its format is {meta['format']}, and this version reads {FORMAT}")
    spec = validate(StudySpec, meta["spec"], f"the spec of {name}")
    record = Record(**{field.name: archive[f"{name}/{field.name}"] for field in fields(Record)})
    return CurveSet(name, spec, tuple(_read_runs(spec, record, meta["runs"])))


def _read_runs(spec: StudySpec, record: Record, runs: Sequence[dict[str, Any]]) -> Iterator[Curve]:
    ends = list(itertools.accumulate(run.pop("rows") for run in runs))
    for run, start, end in zip(runs, [0, *ends], ends, strict=False):
        experiment, _ = spec.run(run["point"], run["replicate"])
        yield Curve(experiment=experiment, record=record.rows(slice(start, end)), **run)


def _solving_epoch(experiment: Experiment, solved_epoch: int) -> int:
    return solved_epoch + (experiment.solved_evaluations - 1) * experiment.evaluation_interval


def round_floats(array: NDArray[Any]) -> NDArray[Any]:
    """Round float32 to fewer bits, so that they compress; ones, zeros and accuracies of whole samples stay distinct."""
    if array.dtype != np.float32:
        return array
    dropped = 23 - MANTISSA_BITS
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + np.uint32(1 << (dropped - 1))) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return np.where(np.isfinite(array), rounded.view(np.float32), array)
