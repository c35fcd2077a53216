"""One run from its first epoch to its end, for whoever wants just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from miiii_search.experiment.lanes import Lanes, Snapshot
from miiii_search.experiment.metrics import Metrics, summarize
from miiii_search.experiment.pace import Pace
from miiii_search.experiment.program import ProgramKey
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.stores import Progress
from miiii_search.experiment.telemetry import Record


@dataclass(frozen=True)
class Result:
    """A run that has ended."""

    progress: Progress
    record: Record
    metrics: Metrics
    weights: Snapshot


class NotFinite(Exception):
    """A run whose loss stopped being finite."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the loss was not finite at epoch {epoch}")
        self.epoch = epoch


def train(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    on_progress: Callable[[Progress, Record], None] = lambda progress, record: None,
) -> Result:
    """Trains one run in one lane. `on_progress` is called about once a second with what is new.

    Raises `NotFinite`.
    """
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters))
    lane = lanes.admit(experiment, hyperparameters)
    pace, records = Pace(), []
    while not lanes.progress(lane).ended:
        with pace.measure(pace.evaluations):
            new = lanes.train(pace.evaluations)[lane]
        records.append(new)
        on_progress(lanes.progress(lane), new)
    record, weights, progress = Record.concatenate(records), lanes.weights(lane), lanes.progress(lane)
    if progress.failed_epoch is not None:
        raise NotFinite(progress.failed_epoch)
    metrics = summarize(experiment, record, progress.solved_epoch, lanes.final(lane), weights)
    return Result(progress, record, metrics, weights)
