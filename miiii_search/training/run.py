"""One run from its first epoch to its end, for whoever wants just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from miiii_search.errors import NonFiniteLossError, OutOfMemoryError, reason
from miiii_search.experiment.metrics import Metrics, summarize
from miiii_search.experiment.record import Record, WeightSnapshot, next_snapshot_epoch
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.chunk_size import ChunkSizer
from miiii_search.training.device import is_out_of_memory
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.lanes import Arrays, Lanes
from miiii_search.training.program import ProgramKey


@dataclass(frozen=True)
class TrainingResult:
    """A run that has ended."""

    progress: RunProgress
    record: Record
    metrics: Metrics
    weights: Arrays


def train(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    on_progress: Callable[[RunProgress, Record], None] = lambda progress, record: None,
    on_snapshot: Callable[[WeightSnapshot], None] = lambda look: None,
    until: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Trains one run in one lane. `on_progress` is called about once a second with what is new, `on_snapshot` at
    log-spaced epochs and at the end. A run that was given up is repeated to the epoch `until`, one of its evaluations.

    `stop` is asked about once a second, first after one evaluation: what has been trained by then is returned, and
    its `progress.ended` is false.

    Raises `NonFiniteLossError`, `OutOfMemoryError`; `ValueError` if `until` is no evaluation of the run.
    """
    if until is not None and (until < 1 or until % experiment.evaluation_interval):
        interval = experiment.evaluation_interval
        raise ValueError(f"until must be a multiple of {interval}, the epochs between evaluations, but is {until}")
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters))
    try:
        return _train(lanes, experiment, hyperparameters, on_progress, on_snapshot, until, stop)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(reason(error), lanes.bytes_per_lane()) from error


def _train(
    lanes: Lanes,
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    on_progress: Callable[[RunProgress, Record], None],
    on_snapshot: Callable[[WeightSnapshot], None],
    until: int | None,
    stop: Callable[[], bool],
) -> TrainingResult:
    lane = lanes.admit(experiment, hyperparameters)
    pace, records, next_snapshot = ChunkSizer(), list[Record](), next_snapshot_epoch(experiment, 0)
    last = min(until or experiment.epochs, experiment.epochs)
    while not ((progress := lanes.progress(lane)).ended or progress.epoch >= last or (records and stop())):
        ahead = int(min(next_snapshot, last)) - progress.epoch
        evaluations = min(pace.evaluations, ahead // experiment.evaluation_interval)
        with pace.measure(evaluations):
            new = lanes.train(evaluations)[lane]
        records.append(new)
        progress = lanes.progress(lane)
        on_progress(progress, new)
        if (progress.ended or progress.epoch >= min(next_snapshot, last)) and progress.failed_epoch is None:
            on_snapshot(WeightSnapshot(progress.epoch, lanes.spectrum(lane), lanes.weights(lane)))
            next_snapshot = next_snapshot_epoch(experiment, progress.epoch)
    record, weights = Record.concatenate(records), lanes.weights(lane)
    if progress.failed_epoch is not None:
        raise NonFiniteLossError(progress.failed_epoch)
    metrics = summarize(experiment, record, progress.solved_epoch, lanes.final_metrics(lane), weights)
    return TrainingResult(progress, record, metrics, weights)
