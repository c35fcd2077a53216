"""A thread that trains lanes, so that no database, figure or compilation keeps a device waiting."""

from __future__ import annotations

import contextlib
import gc
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import jax

from miiii_search.experiment.record import Floats, Record, WeightSnapshot, next_snapshot_epoch
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.chunk_size import ChunkSizer
from miiii_search.training.device import is_out_of_memory
from miiii_search.training.lane_state import PendingRecords, RunProgress
from miiii_search.training.lanes import Arrays, Lanes


@dataclass(frozen=True)
class FinalState:
    """What a run came to: `Lanes.final` and `Lanes.weights`, both empty if it failed."""

    final_metrics: dict[str, Floats]
    weights: Arrays


@dataclass(frozen=True)
class RunUpdate:
    """What became of one run in one chunk."""

    run: int
    progress: RunProgress
    epochs_per_second: float
    final_state: FinalState | None
    """Of a run that has ended, or was stopped: nothing more will come of it."""
    weight_snapshot: WeightSnapshot | None
    _rows: PendingRecords
    _lane: int

    def record(self) -> Record:
        """What was recorded; waits until it has come from the device, which computes on meanwhile."""
        return self._rows.record(self._lane)


@dataclass(frozen=True)
class ChunkTiming:
    """When lanes were trained: for timelines. Seconds of `time.monotonic`."""

    start: float
    end: float
    lanes: int


@dataclass(frozen=True)
class RunSaved:
    """All that one run is at one moment; every update up to it was posted before."""

    run: int
    epoch: int
    state: Arrays


@dataclass(frozen=True)
class RunSuspended:
    """A run that gave up its lane when told to; what it was then was posted as `RunSaved` before, if it had begun."""

    run: int


@dataclass(frozen=True)
class RunsOutOfMemory:
    """Runs that their device could not hold: nothing more will come of them.

    Those whose state could still be read were posted as `RunSaved` just before.
    """

    runs: tuple[int, ...]
    bytes_per_lane: int | None
    """What one of them takes while it trains, by the compiler's account."""
    reason: str
    """What the device said, in a line."""


TrainerEvent = RunUpdate | RunSaved | RunSuspended | RunsOutOfMemory | BaseException
"""What a trainer posts: updates, snapshots, what was suspended or did not fit, or the error that ended it."""


@dataclass(frozen=True)
class RunRequest:
    """What a trainer is to train, with a number of the caller's; from its first epoch, or from a snapshot."""

    number: int
    experiment: Experiment
    hyperparameters: Hyperparameters
    state: Arrays | None = None


@dataclass
class _Running:
    run: RunRequest
    lane: int
    next_snapshot: float
    reported_epoch: int
    """The epoch of the last update."""
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def number(self) -> int:
        return self.run.number


@dataclass
class _Inbox:
    admit: list[RunRequest] = field(default_factory=list)
    stop: set[int] = field(default_factory=set)
    suspend: set[int] = field(default_factory=set)
    drop: set[int] = field(default_factory=set)


class Trainer:
    """Trains the runs it is given, as lanes of one program, and posts an `RunUpdate` a run and chunk.

    `gate` is held while a chunk is computed: where several trainers share a processor, it says how many
    compute at once. `on_chunk` is told of every chunk. A `RunSaved` of every run is posted every `save_seconds`, and
    at the end that `close` asks for. Only `join` waits.
    """

    def __init__(
        self,
        lanes: Lanes,
        post: Callable[[TrainerEvent], None],
        semaphore: AbstractContextManager[object] | None = None,
        on_chunk: Callable[[ChunkTiming], None] = lambda chunk: None,
        save_seconds: float = math.inf,
    ) -> None:
        self._lanes = lanes
        self._post = post
        self._semaphore = semaphore or nullcontext()
        self._on_chunk = on_chunk
        self._pace = ChunkSizer()
        self._save_seconds = save_seconds
        self._runs: list[_Running] = []
        self._waiting: list[RunRequest] = []
        self._closed = threading.Event()
        self._messages: queue.SimpleQueue[Callable[[_Inbox], object]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="trainer", daemon=True)
        self._thread.start()

    def admit(self, runs: Sequence[RunRequest]) -> None:
        """Gives lanes to runs."""
        self._messages.put(lambda inbox: inbox.admit.extend(runs))

    def stop(self, run: int) -> None:
        """Ends a run where it stands; its last update has an end. Does nothing if it has ended by itself."""
        self._messages.put(lambda inbox: inbox.stop.add(run))

    def suspend(self, run: int) -> None:
        """Saves a run and frees its lane; a `RunSuspended` is posted last. Does nothing if it has ended."""
        self._messages.put(lambda inbox: inbox.suspend.add(run))

    def drop(self, run: int) -> None:
        """Frees a run's lane; at most what is under way will come of it."""
        self._messages.put(lambda inbox: inbox.drop.add(run))

    def close(self) -> None:
        """Ends after the chunk that is under way."""
        self._closed.set()
        self._messages.put(lambda inbox: None)  # for one that waits for a message

    def join(self, seconds: float) -> None:
        """Waits so long for the end that `close` asked for."""
        self._thread.join(seconds)

    def _main(self) -> None:
        try:
            while not self._closed.is_set():
                inbox, failure = self._read(), None
                try:
                    self._obey(inbox)
                    if self._runs:
                        self._train(inbox.stop)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    failure = (str(error).strip().splitlines() or ["the host is out of memory"])[0]
                if failure is not None:
                    self._give_up(failure)
            self._save_all()
        except BaseException as error:
            self._post(error)

    def _read(self) -> _Inbox:
        """All messages; waits for one if there is nothing to train."""
        inbox = _Inbox()
        while not self._messages.empty() or not (self._runs or self._waiting or inbox.admit or self._closed.is_set()):
            self._messages.get()(inbox)
        return inbox

    def _obey(self, inbox: _Inbox) -> None:
        for running in [running for running in self._runs if running.number in inbox.drop]:
            self._release(running)
        self._waiting = [run for run in self._waiting + inbox.admit if run.number not in inbox.drop]
        self._suspend(inbox.suspend)
        # A wider program is compiled beside the lanes that run; those that need it wait.
        lanes = len(self._runs) + len(self._waiting)
        if self._waiting and self._lanes.prepare(lanes, wait=not self._runs):
            if self._lanes.needs_wider_program(lanes):
                self._save_all()  # more may not fit, and what does not fit takes its neighbours with it
            while self._waiting:
                run = self._waiting[0]
                lane = self._lanes.admit(run.experiment, run.hyperparameters, run.state)
                epoch = self._lanes.progress(lane).epoch
                next_snapshot = next_snapshot_epoch(run.experiment, epoch)
                self._runs.append(
                    _Running(RunRequest(run.number, run.experiment, run.hyperparameters), lane, next_snapshot, epoch)
                )
                self._waiting.pop(0)

    def _suspend(self, numbers: set[int]) -> None:
        for running in [running for running in self._runs if running.number in numbers]:
            if self._save_seconds < math.inf:
                self._save(running)
            self._release(running)
            self._post(RunSuspended(running.number))
        for run in [run for run in self._waiting if run.number in numbers]:
            self._waiting.remove(run)
            self._post(RunSuspended(run.number))

    def _train(self, stop: set[int]) -> None:
        # No further than to the next look of any lane.
        evaluations = min(self._pace.evaluations, *map(self._evaluations_ahead, self._runs))
        with self._semaphore:
            if self._closed.is_set():  # while this waited for its turn
                return
            start = time.monotonic()
            with self._pace.measure(evaluations):
                rows = self._lanes.train_async(evaluations)
            self._on_chunk(ChunkTiming(start, time.monotonic(), len(self._runs)))
        for running in list(self._runs):
            self._post_update(running, rows, stopped=running.number in stop)
        for running in self._runs:
            if time.monotonic() - running.saved_at >= self._save_seconds:
                self._save(running)

    def _evaluations_ahead(self, running: _Running) -> int:
        """Until the run's next look, or its end; both are at an evaluation."""
        experiment = running.run.experiment
        until = int(min(running.next_snapshot, experiment.epochs))
        return (until - self._lanes.progress(running.lane).epoch) // experiment.evaluation_interval

    def _save_all(self) -> None:
        if self._save_seconds < math.inf:
            for running in self._runs:
                self._save(running)

    def _save(self, running: _Running) -> None:
        progress, running.saved_at = self._lanes.progress(running.lane), time.monotonic()
        if progress.epoch and progress.failed_epoch is None:
            self._post(RunSaved(running.number, progress.epoch, self._lanes.state(running.lane)))

    def _give_up(self, reason: str) -> None:
        """Ends all runs, as far as possible at the last epoch of which everything was posted."""
        for running in self._runs:
            # What was being computed is lost: its memory had been given to the result.
            with contextlib.suppress(jax.errors.JaxRuntimeError, RuntimeError, MemoryError):
                snapshot = self._lanes.state(running.lane)
                if 0 < running.reported_epoch == int(snapshot["epoch"]) and self._save_seconds < math.inf:
                    self._post(RunSaved(running.number, running.reported_epoch, snapshot))
        numbers = (*(running.number for running in self._runs), *(run.number for run in self._waiting))
        size = self._lanes.bytes_per_lane()
        self._runs, self._waiting = [], []
        self._lanes.clear()
        gc.collect()  # the error's frames refer to each other, and to what was on the device
        self._post(RunsOutOfMemory(numbers, size, reason))

    def _post_update(self, running: _Running, rows: PendingRecords, stopped: bool) -> None:
        lane, experiment = running.lane, running.run.experiment
        progress, look, end = self._lanes.progress(lane), None, None
        over = progress.ended or stopped
        failed = progress.failed_epoch is not None
        if (over or progress.epoch >= running.next_snapshot) and not failed:
            look = WeightSnapshot(progress.epoch, self._lanes.spectrum(lane), self._lanes.weights(lane))
            running.next_snapshot = next_snapshot_epoch(experiment, progress.epoch)
        if over:
            end = FinalState({} if failed else self._lanes.final_metrics(lane), look.weights if look else {})
        speed = rows.evaluations(lane) * experiment.evaluation_interval / max(self._pace.seconds, 1e-9)
        self._post(RunUpdate(running.number, progress, speed, end, look, rows, lane))
        running.reported_epoch = progress.epoch
        if over:
            self._release(running)

    def _release(self, running: _Running) -> None:
        self._lanes.release(running.lane)
        self._runs.remove(running)
