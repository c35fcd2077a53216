"""Predicted training speeds on GPUs, from a table that comes with the package.

`make gpu-compile` writes the table. It compiles the training programs for each GPU, counts their arithmetic, traffic
and launches, and divides them by the GPU's published figures. Nothing in the table was measured on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from miiii_search.config.suggestions import suggest
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.switches import PAPER, Switches

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from miiii_search.config.study_spec import StudySpec
    from miiii_search.storage.records import RunningTrial

TABLE = "gpu_predictions.json"


@dataclass(frozen=True)
class Gpu:
    """A GPU that programs were compiled for."""

    key: str
    """Name on the command line, such as `h200`."""
    name: str
    """Name that the driver gives it."""
    memory: float
    """Bytes that lanes may use: most of the GPU's memory."""


@dataclass(frozen=True)
class Prediction:
    """The predicted speed of one compiled program on one GPU."""

    gpu: str
    precision: str
    d_model: int
    lanes: int
    memory_per_lane: float
    """Bytes per lane during training."""
    lane_epochs_per_second: float
    """Epochs per second of all lanes together."""

    def scaled(self, factor: float) -> Prediction:
        """Return the prediction for an experiment with this many times as many training samples."""
        return replace(
            self,
            memory_per_lane=self.memory_per_lane * factor,
            lane_epochs_per_second=self.lane_epochs_per_second / factor,
        )

    def with_fewer_lanes(self, lanes: int) -> Prediction:
        """Return the prediction for fewer lanes, whose epoch takes as long: at most this is what they need."""
        return replace(self, lanes=lanes, lane_epochs_per_second=self.lane_epochs_per_second * lanes / self.lanes)


@dataclass(frozen=True)
class PredictionTable:
    """All predictions of the package."""

    gpus: tuple[Gpu, ...]
    experiment: Experiment
    """The experiment of all compiled programs, except its precision."""
    predictions: tuple[Prediction, ...]
    """By GPU, precision, width and number of lanes, in ascending order."""

    def gpu(self, name: str) -> Gpu:
        """Return the GPU of a name such as `h200`, or of its end such as `4090`.

        Raises:
            MiiiiSearchError: The table does not have it.
        """
        for gpu in self.gpus:
            if name and gpu.key.endswith(name.lower()):
                return gpu
        keys = [gpu.key for gpu in self.gpus]
        raise MiiiiSearchError(
            f"there is no prediction for the GPU `{name}`{suggest(name.lower(), keys)}; --gpu may be "
            f"{', '.join(keys)}; for another one, give a measured speed with --lane-epochs-per-second"
        )

    def gpu_of_device(self, device: str) -> Gpu | None:
        """Return the GPU that a worker's description of its device names; None for a CPU and for other GPUs."""
        return next((gpu for gpu in self.gpus if device == f"gpu ({gpu.name})"), None)

    def find(self, gpu: Gpu, experiment: Experiment, d_model: int) -> list[Prediction]:
        """Return the predictions for runs of one width, by ascending number of lanes; none if the table has none.

        Time and memory consist almost entirely of what is done per training sample. So they are in proportion to the
        samples if the training fraction differs. Other moduli than those of the table are not predicted.
        """
        if experiment.p != self.experiment.p or experiment.classes != self.experiment.classes:
            return []
        factor, wanted = experiment.n_train / self.experiment.n_train, (gpu.key, experiment.precision, d_model)
        return [p.scaled(factor) for p in self.predictions if (p.gpu, p.precision, p.d_model) == wanted]

    def speed(self, gpu: Gpu, experiment: Experiment, widths: Sequence[int]) -> float | None:
        """Return the predicted speed of lanes that train together on one GPU.

        Args:
            gpu: The GPU.
            experiment: The experiment of all lanes.
            widths: `d_model` of each lane.

        Returns:
            The epochs per second of all lanes together. None if there are no lanes, or if the table lacks a width.
        """
        seconds = 0.0  # of one epoch of every lane
        for d_model in set(widths):
            lanes, entries = widths.count(d_model), self.find(gpu, experiment, d_model)
            if not entries:
                return None
            entry = max(
                (e for e in entries if e.lanes <= lanes),
                key=lambda e: e.lanes,
                default=entries[0].with_fewer_lanes(min(lanes, entries[0].lanes)),
            )
            seconds += lanes / entry.lane_epochs_per_second
        return len(widths) / seconds if seconds else None


def uncompiled_options(spec: StudySpec) -> str:
    """Return options of the training step that a study has and the compiled programs lack, such as `optimizer=muon`.

    The text is empty if there are none.
    """
    found = (Switches.of(spec.run_at(point, 0)[1]) for point in spec.corners())
    return next((str(switches) for switches in found if switches != PAPER), "")


def predict_throughput(
    spec: StudySpec,
    running: Sequence[RunningTrial],
    finished: Iterable[FrozenTrial],
    table: PredictionTable | None = None,
) -> float | None:
    """Return the predicted epochs per second of all running trials together.

    Args:
        spec: The study.
        running: The running trials. Those whose parameters were not read are taken to be like the others.
        finished: Finished trials, which tell on which device their worker trains.
        table: The predictions. By default those that come with the package.

    Returns:
        The sum over the workers, with one GPU each. None if nothing is trained, or if a worker's device or the study's
        programs have no prediction.
    """
    devices = {str(t.user_attrs.get("worker")): str(t.user_attrs.get("device")) for t in finished}
    if not running or not all(devices.get(trial.worker, "").startswith("gpu") for trial in running):
        return None
    if uncompiled_options(spec):
        return None
    table, total = table or read_predictions(), 0.0
    for worker in {trial.worker for trial in running}:
        lanes = [trial for trial in running if trial.worker == worker]
        known = [int(t.params.get("d_model", spec.hyperparameters.d_model)) for t in lanes if t.params]
        gpu = table.gpu_of_device(devices[worker])
        if gpu is None or not known:
            return None
        widths = [known[k % len(known)] for k in range(len(lanes))]
        if (speed := table.speed(gpu, spec.experiment, widths)) is None:
            return None
        total += speed
    return total


@cache
def read_predictions() -> PredictionTable:
    """Return the table that comes with the package."""
    return parse_predictions((resources.files("miiii_search") / "training" / TABLE).read_text(encoding="utf-8"))


def parse_predictions(text: str) -> PredictionTable:
    """Return the predictions in a table that `bench/gpu_compile.py --table` wrote.

    Args:
        text: The table as JSON. Programs for several devices are left out: each device trains as if it were alone.
    """
    table: dict[str, Any] = json.loads(text)
    share = table["assumptions"]["memory_share"]
    predictions = [
        Prediction(
            program["target"],
            program["precision"],
            program["d_model"],
            program["lanes"],
            program["memory_per_lane"],
            program["predicted_lane_epochs_per_second"],
        )
        for program in table["programs"]
        if program["devices"] == 1
    ]
    return PredictionTable(
        tuple(Gpu(key, gpu["name"], share * gpu["memory"]) for key, gpu in table["targets"].items()),
        Experiment.model_validate(table["experiment"]),
        tuple(sorted(predictions, key=lambda p: (p.gpu, p.precision, p.d_model, p.lanes))),
    )
