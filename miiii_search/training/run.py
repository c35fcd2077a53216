"""Training of a single run from its first epoch to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from miiii_search.errors import NonFiniteLossError, OutOfMemoryError, reason
from miiii_search.experiment.metrics import Metrics, summarize
from miiii_search.experiment.record import Record, WeightSnapshot, next_snapshot_epoch
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.chunk_size import ChunkSizer
from miiii_search.training.device import is_out_of_memory
from miiii_search.training.lane_state import Arrays, RunProgress
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run."""

    progress: RunProgress
    record: Record
    metrics: Metrics
    weights: Arrays


def train(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    on_progress: Callable[[RunProgress, Record], None] = lambda progress, record: None,
    on_snapshot: Callable[[WeightSnapshot], None] = lambda snapshot: None,
    until: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train one run in one lane.

    Args:
        experiment: The run's experiment.
        hyperparameters: The run's hyperparameters.
        on_progress: Called about once a second with the progress and the new rows of the record.
        on_snapshot: Called with a snapshot of the weights at log-spaced epochs and at the end.
        until: The epoch at which to stop, such as the last epoch of a pruned run that is repeated.
        stop: Called about once a second, first after one evaluation. Training stops once it returns True.

    Returns:
        The result. If `stop` or `until` ended the training, `progress.ended` is False.

    Raises:
        NonFiniteLossError: The loss became infinite or NaN.
        OutOfMemoryError: The run does not fit into memory.
        ValueError: `until` is not an epoch at which the run is evaluated.
    """
    if until is not None and (until < 1 or until % experiment.evaluation_interval):
        interval = experiment.evaluation_interval
        raise ValueError(f"until must be a multiple of {interval}, the epochs between evaluations, but is {until}")
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters))
    try:
        return _train(
            lanes,
            experiment=experiment,
            hyperparameters=hyperparameters,
            on_progress=on_progress,
            on_snapshot=on_snapshot,
            until=until,
            stop=stop,
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(reason(error), lanes.bytes_per_lane()) from error


def _train(
    lanes: Lanes,
    *,
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    on_progress: Callable[[RunProgress, Record], None],
    on_snapshot: Callable[[WeightSnapshot], None],
    until: int | None,
    stop: Callable[[], bool],
) -> TrainingResult:
    lane = lanes.admit(experiment, hyperparameters)
    chunk_sizer, records, next_snapshot = ChunkSizer(), list[Record](), next_snapshot_epoch(experiment, 0)
    last = min(until or experiment.epochs, experiment.epochs)
    while not ((progress := lanes.progress(lane)).ended or progress.epoch >= last or (records and stop())):
        ahead = int(min(next_snapshot, last)) - progress.epoch
        evaluations = min(chunk_sizer.evaluations, ahead // experiment.evaluation_interval)
        with chunk_sizer.measure(evaluations):
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
