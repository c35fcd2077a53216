"""The records of the full-length runs as small files, and a comparison with the paper's Figure 6.

`bench/reproduce.py` is the command line for this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from full_length_runs import read_state
from numpy.typing import NDArray

from miiii_search.analysis.milestones import find_milestones
from miiii_search.analysis.reference import ReferenceCurves, differences_from_reference
from miiii_search.experiment.record import Floats, Record, spectra_from_npz
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.runs.run_folder import read_run
from miiii_search.simulation.curves import round_floats

PACKED = Path(__file__).parent / "curves" / "full-length"

MAX_ROWS = 512
"""Maximum number of evaluations of a run that are kept, evenly spaced on a logarithmic axis of epochs."""

FIGURE_6 = {
    "epoch": (2033, 2846, 3982, 7800, 12209, 17086, 23912, 33463, 65536),
    "training": (0.469, 0.552, 0.616, 0.679, 0.800, 0.888, 0.929, 0.999, 0.996),
    "validation": (0.150, 0.156, 0.162, 0.184, 0.237, 0.352, 0.751, 0.973, 0.999),
}
"""Mean accuracies over the 29 tasks, read off the paper's Figure 6 to about 0.02."""

CLIPPED = 0.05
"""Lowest accuracy that Figure 6 shows. Ours are clipped to it before they are compared."""

COMPARED_UNTIL = 20_000
"""Last epoch that `max_train_difference` covers. Later, a shift in epochs outweighs everything else."""


@dataclass(frozen=True)
class PackedRun:
    """A run as the repository keeps it, without weights."""

    name: str
    about: dict[str, Any]  # claim, epoch, solved_epoch, ended, device, versions, seconds
    experiment: Experiment
    hyperparameters: Hyperparameters
    record: Record
    spectra: dict[int, Floats]


def pack(folder: Path, names: Iterable[str], packed: Path = PACKED) -> None:
    """Write the record of each of these runs that was started in `folder` to a small file."""
    packed.mkdir(parents=True, exist_ok=True)
    for name in names:
        state = read_state(folder / name)
        if state is None:
            continue
        run, problems = read_run(folder / name)
        if run.record is None:
            raise SystemExit("; ".join(problems))
        about = {key: value for key, value in state.items() if key != "completed"}
        about |= {
            "experiment": run.experiment.model_dump(),
            "hyperparameters": run.hyperparameters.model_dump(),
            "milestones": find_milestones(run.experiment, run.record).generalised,
        }
        record = run.record.rows(np.isin(np.arange(len(run.record)), rows_to_keep(run.record.epoch)))
        small = Record(**{field: round_floats(getattr(record, field)) for field in record.__dataclass_fields__})
        spectra = {epoch: round_floats(spectrum) for epoch, spectrum in run.spectra.items()}
        meta = np.frombuffer(json.dumps(about).encode(), np.uint8)
        path = packed / f"{name}.npz"
        path.write_bytes(small.to_npz(spectra, about=meta))
        print(f"{path}: epoch {state['epoch']:,}, {len(small)} evaluations, {path.stat().st_size / 1e6:.2f} MB")


def rows_to_keep(epochs: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return at most `MAX_ROWS` rows, including first and last, evenly spaced in the logarithm of the epoch."""
    if len(epochs) <= MAX_ROWS:
        return np.arange(len(epochs))
    wanted = np.geomspace(epochs[0], epochs[-1], MAX_ROWS)
    return np.unique(np.abs(epochs[:, None] - wanted[None]).argmin(axis=0))


def packed_runs(names: Iterable[str], packed: Path = PACKED) -> Iterator[PackedRun]:
    """Read those of these runs that `pack` has written."""
    for name in names:
        path = packed / f"{name}.npz"
        if not path.exists():
            continue
        data = path.read_bytes()
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
        yield PackedRun(
            name,
            about,
            Experiment.model_validate(about.pop("experiment"), strict=False),
            Hyperparameters.model_validate(about.pop("hyperparameters")),
            Record.from_npz(data),
            spectra_from_npz(data),
        )


def figure_6(moduli: tuple[int, ...]) -> ReferenceCurves:
    """Return the means of Figure 6 as reference curves in which all tasks are equal."""
    means = {split: np.asarray(FIGURE_6[split]) for split in ("training", "validation")}
    return ReferenceCurves(
        "Figure 6",
        moduli,
        np.asarray(FIGURE_6["epoch"]),
        {split: np.repeat(values[:, None], len(moduli), axis=1) for split, values in means.items()},
        CLIPPED,
    )


def figures(run: PackedRun, reference: ReferenceCurves | None = None) -> dict[str, Any]:
    """Return the figures of a run for the report: epochs, tasks learned, and means at the epochs of Figure 6."""
    accuracy, scored = run.record.validation_accuracy[-1], np.asarray(run.experiment.scored)
    found: dict[str, Any] = {
        "claim": run.about["claim"],
        "epochs": int(run.record.epoch[-1]),
        "ended": run.about["ended"],
        "solved_epoch": run.about["solved_epoch"],
        "tasks_at_099": int((accuracy >= 0.99)[scored].sum()),
        "train_mean": float(run.record.train_accuracy[-1][scored].mean()),
        "validation_mean": float(accuracy[scored].mean()),
        "generalised": run.about["milestones"],
        "seconds": run.about["seconds"],
    }
    whole = reference or figure_6(run.experiment.task_moduli)
    if run.record.epoch[-1] >= whole.epochs[0]:
        compared = differences_from_reference(run.experiment, run.record, figure_6(run.experiment.task_moduli))
        for split, key in (("training", "train_at"), ("validation", "validation_at")):
            means = zip(compared.epochs.tolist(), compared.run[split].tolist(), strict=True)
            found[key] = {str(epoch): round(mean, 4) for epoch, mean in means}
        if run.name == "authors-code":
            against = differences_from_reference(run.experiment, run.record, whole)
            found["max_train_difference"] = against.largest("training", COMPARED_UNTIL)[0]
            found["max_validation_difference"] = against.largest("validation", COMPARED_UNTIL)[0]
    return found


def report(
    names: Iterable[str], reference: ReferenceCurves | None = None, packed: Path = PACKED
) -> dict[str, dict[str, Any]]:
    """Return the figures of each of these runs that is packed, by name."""
    return {run.name: figures(run, reference) for run in packed_runs(names, packed)}
