"""The plan of a study that has not begun: how many trials train at once, and how long all of them take.

It is computed from a predicted speed of a GPU, or from a speed that was measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from miiii_search.config.search_space import Range
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.study.gpu_predictions import (
    Gpu,
    Prediction,
    PredictionTable,
    read_predictions,
    uncompiled_options,
)

MOST_LANES = 64
"""Most lanes that a worker with `--lanes auto` tries."""

MIN_SPEEDUP = 1.05
"""Factor by which more lanes must be faster for a worker with `--lanes auto` to choose them."""


@dataclass(frozen=True)
class EpochShare:
    """The share of all epochs that studies trained on recorded curves: its mean, and its range over the sets."""

    mean: float
    low: float
    high: float


SHARES = {
    "none": EpochShare(0.849, 0.70, 1.00),
    "forecast": EpochShare(0.594, 0.49, 0.82),
    "quantile": EpochShare(0.656, 0.51, 0.81),
}
"""Share of the epochs that each of our rules trains: the tables of docs/research/pruning.md (`make bench-pruning`)."""


@dataclass(frozen=True)
class WidthPlan:
    """The trials of one width of the network."""

    d_model: int | None
    """Width of the residual stream. None stands for all widths."""
    trials: int
    lanes_that_fit: int | None
    """Lanes for which one GPU has enough memory. None if that is unknown."""
    lanes: int | None
    """Lanes that train at once on one GPU. None if that is unknown."""
    lane_epochs_per_second: float
    """Epochs per second of all lanes of one GPU together."""

    def trials_per_hour(self, epochs: int) -> float:
        """Return how many trials of this many epochs one GPU trains in an hour."""
        return 3600 * self.lane_epochs_per_second / epochs


@dataclass(frozen=True)
class Plan:
    """The time that a study takes if the speeds hold."""

    preset: str | None
    trials: int
    epochs: int
    """Epochs of a trial that is neither solved nor pruned."""
    rule: str
    """The study's pruning rule."""
    gpu: Gpu | None
    """The GPU of the prediction. None if the speed was measured."""
    gpus: int
    """Number of GPUs, or of machines with the measured speed."""
    precision: str
    widths: tuple[WidthPlan, ...]

    @property
    def gpu_seconds(self) -> float:
        """Seconds in which one GPU trains every epoch of every trial."""
        return sum(width.trials * self.epochs / width.lane_epochs_per_second for width in self.widths)

    def seconds(self, share: float = 1.0) -> float:
        """Return the seconds in which all GPUs train a share of the epochs."""
        return share * self.gpu_seconds / self.gpus

    @property
    def shares(self) -> dict[str, EpochShare]:
        """The known shares of epochs without pruning, and with the study's rule."""
        return {rule: SHARES[rule] for rule in dict.fromkeys(("none", self.rule)) if rule in SHARES}

    def to_json(self) -> dict[str, Any]:
        """Return what `plan --json` prints."""
        totals = {"all_epochs": EpochShare(1.0, 1.0, 1.0), **self.shares}
        return {
            **{name: getattr(self, name) for name in ("preset", "trials", "epochs", "rule", "precision", "gpus")},
            "gpu": self.gpu and self.gpu.key,
            "is_measured": self.gpu is None,
            "widths": [asdict(width) for width in self.widths],
            "totals": {
                name: {
                    "share_of_epochs": asdict(share),
                    "seconds": self.seconds(share.mean),
                    "gpu_hours": share.mean * self.gpu_seconds / 3600,
                }
                for name, share in totals.items()
            },
        }


def plan_on_gpu(
    spec: StudySpec, name: str, gpus: int = 1, lanes: int | None = None, table: PredictionTable | None = None
) -> Plan:
    """Return the plan of a study on one or more GPUs of a kind, from predicted speeds.

    Args:
        spec: The study.
        name: Name of the kind of GPU, such as `h200`.
        gpus: Number of GPUs. The trials of each width are divided evenly among them.
        lanes: Number of lanes per GPU. By default the number that a worker with `--lanes auto` would choose.
        table: The predictions. By default those that come with the package.

    Raises:
        MiiiiSearchError: The table has no prediction for the study, or not one lane fits.
    """
    table = table or read_predictions()
    gpu, widths = table.gpu(name), []
    if options := uncompiled_options(spec):
        raise MiiiiSearchError(
            f"there is no prediction for programs with {options}; give a measured speed with --lane-epochs-per-second"
        )
    for d_model, trials in trials_by_width(spec).items():
        entries = table.find(gpu, spec.experiment, d_model)
        if not entries:
            raise MiiiiSearchError(
                f"there is no prediction for p = {spec.experiment.p}, task {spec.experiment.task}, d_model = {d_model} "
                f"and precision {spec.experiment.precision} on an {gpu.name}; "
                "give a measured speed with --lane-epochs-per-second"
            )
        widths.append(_plan_width(entries, gpu, trials, ceil(trials / gpus), lanes))
    return _plan(spec, gpu, gpus, widths)


def plan_at_speed(spec: StudySpec, lane_epochs_per_second: float, gpus: int = 1) -> Plan:
    """Return the plan of a study at a measured speed.

    Args:
        spec: The study.
        lane_epochs_per_second: Epochs per second of all lanes of one GPU or machine, whatever their width.
        gpus: Number of GPUs or machines.
    """
    return _plan(spec, None, gpus, [WidthPlan(None, spec.n_trials, None, None, lane_epochs_per_second)])


def trials_by_width(spec: StudySpec) -> dict[int, int]:
    """Return the number of trials of each `d_model`. A space that is sampled is taken to be sampled evenly.

    Raises:
        MiiiiSearchError: `d_model` is searched over a range, so that nobody knows which widths are trained.
    """
    dimension = spec.space.get("d_model", (spec.hyperparameters.d_model,))
    if isinstance(dimension, Range):
        raise MiiiiSearchError(
            "space.d_model is a range, and the speed depends on the width: list its values, "
            "or give a measured speed with --lane-epochs-per-second"
        )
    default = spec.hyperparameters.d_model
    points = spec.points() if spec.is_finite else [{"d_model": width} for width in dimension]
    counts = Counter(int(point.get("d_model", default)) for point in points)
    # The budget cuts the grid, and further seeds extend it: both in proportion, and the last width gets the remainder.
    left, weight, trials = spec.n_trials, counts.total(), {}
    for d_model in sorted(counts):
        trials[d_model] = round(left * counts[d_model] / weight)
        left, weight = left - trials[d_model], weight - counts[d_model]
    return {d_model: n for d_model, n in trials.items() if n}


def _plan(spec: StudySpec, gpu: Gpu | None, gpus: int, widths: Sequence[WidthPlan]) -> Plan:
    experiment = spec.experiment
    return Plan(
        preset=spec.preset,
        trials=spec.n_trials,
        epochs=experiment.epochs,
        rule=spec.pruning.rule,
        gpu=gpu,
        gpus=gpus,
        precision=experiment.precision,
        widths=tuple(widths),
    )


def _plan_width(
    entries: Sequence[Prediction], gpu: Gpu, trials: int, trials_per_gpu: int, lanes: int | None
) -> WidthPlan:
    """Return the plan of the trials of one width.

    Args:
        entries: Predictions by ascending number of lanes.
        gpu: The kind of GPU.
        trials: Number of trials of this width.
        trials_per_gpu: Number of trials of this width on one GPU, which limits the lanes.
        lanes: Number of lanes; None chooses as `--lanes auto` does.
    """
    fit = int(gpu.memory / max(entry.memory_per_lane for entry in entries))
    if not fit:
        raise MiiiiSearchError(
            f"not one lane of d_model = {entries[0].d_model} fits into the memory of an {gpu.name}: it takes "
            f"{entries[0].memory_per_lane / 2**20:,.0f} MiB"
        )
    limit = min(fit, trials_per_gpu, lanes or MOST_LANES)
    usable = [entry for entry in entries if entry.lanes <= limit]
    chosen = usable[0] if usable else entries[0].with_fewer_lanes(limit)
    for entry in usable:
        if lanes or entry.lane_epochs_per_second >= MIN_SPEEDUP * chosen.lane_epochs_per_second:
            chosen = entry
    return WidthPlan(chosen.d_model, trials, fit, chosen.lanes, chosen.lane_epochs_per_second)
