"""A thread that trains lanes, so that the device never waits for a database, a figure or a compilation."""

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

from miiii_search import failpoints
from miiii_search.experiment.record import WeightSnapshot, next_snapshot_epoch
from miiii_search.training.chunk_size import ChunkSizer
from miiii_search.training.device import is_out_of_memory
from miiii_search.training.lane_stores import PendingRecords
from miiii_search.training.lanes import Lanes
from miiii_search.training.trainer_messages import (
    Admit,
    ChunkTiming,
    Close,
    Drop,
    FinalState,
    RunRequest,
    RunSaved,
    RunsOutOfMemory,
    RunSuspended,
    RunUpdate,
    Stop,
    Suspend,
    TrainerCommand,
    TrainerEvent,
)


@dataclass
class _ActiveRun:
    """A run that has a lane."""

    run: RunRequest
    """The request, without its state."""
    lane: int
    next_snapshot: float
    """The epoch at which the next snapshot of the weights is due."""
    reported_epoch: int
    """The epoch of the last update."""
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def number(self) -> int:
        """The number that the caller chose."""
        return self.run.number


@dataclass
class _Commands:
    """The commands of the caller since the last chunk: runs to admit, and numbers of runs to stop, suspend or drop."""

    admit: list[RunRequest] = field(default_factory=list)
    stop: set[int] = field(default_factory=set)
    suspend: set[int] = field(default_factory=set)
    drop: set[int] = field(default_factory=set)

    def add(self, command: TrainerCommand) -> None:
        """Add a command, after those that were added before."""
        match command:
            case Admit(runs):
                self.admit.extend(runs)
            case Stop(run):
                self.stop.add(run)
            case Suspend(run):
                self.suspend.add(run)
            case Drop(run):
                self.drop.add(run)
            case Close():  # it only wakes a thread that waits for a command
                pass


class Trainer:
    """Trains runs as lanes of one program, in a thread, and posts a `RunUpdate` of each run after each chunk.

    All methods return at once, except `join`.

    Args:
        lanes: The lanes. Only the trainer may use them from now on.
        post: Called with each event, in the trainer's thread.
        semaphore: Held while a chunk is computed. It limits how many trainers that share a processor compute at once.
        on_chunk: Called after each chunk, in the trainer's thread.
        save_seconds: Seconds between two `RunSaved` of a run. If finite, all runs are also saved at the end.
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
        self._chunk_sizer = ChunkSizer()
        self._save_seconds = save_seconds
        self._runs: list[_ActiveRun] = []
        self._waiting: list[RunRequest] = []
        self._closed = threading.Event()
        self._command_queue: queue.SimpleQueue[TrainerCommand] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="trainer", daemon=True)
        self._thread.start()

    def admit(self, runs: Sequence[RunRequest]) -> None:
        """Train runs, each in a lane of its own."""
        self._command_queue.put(Admit(tuple(runs)))

    def stop(self, run: int) -> None:
        """End a run at its current epoch. Its last update has a final state. Do nothing if it has ended already."""
        self._command_queue.put(Stop(run))

    def suspend(self, run: int) -> None:
        """Save a run, free its lane and post a `RunSuspended`. Do nothing if it has ended already."""
        self._command_queue.put(Suspend(run))

    def drop(self, run: int) -> None:
        """Free the lane of a run. Only events of the current chunk may follow."""
        self._command_queue.put(Drop(run))

    def close(self) -> None:
        """End the thread after the current chunk."""
        self._closed.set()
        self._command_queue.put(Close())

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, at most for a number of seconds."""
        self._thread.join(seconds)

    def _main(self) -> None:
        try:
            while not self._closed.is_set():
                commands, failure = self._read_commands(), None
                try:
                    self._execute(commands)
                    if self._runs:
                        self._train(commands.stop)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    failure = (str(error).strip().splitlines() or ["the host is out of memory"])[0]
                if failure is not None:
                    self._drop_all_out_of_memory(failure)
            self._save_all()
        except BaseException as error:
            self._post(error)

    def _read_commands(self) -> _Commands:
        """Return all commands. Wait for one if there is nothing to train."""
        commands = _Commands()
        while not self._command_queue.empty() or not (
            self._runs or self._waiting or commands.admit or self._closed.is_set()
        ):
            commands.add(self._command_queue.get())
        return commands

    def _execute(self, commands: _Commands) -> None:
        for active in [active for active in self._runs if active.number in commands.drop]:
            self._release(active)
        self._waiting = [run for run in self._waiting + commands.admit if run.number not in commands.drop]
        self._suspend(commands.suspend)
        # A wider program is compiled while the current one trains. Runs that need it wait.
        lanes = len(self._runs) + len(self._waiting)
        if self._waiting and self._lanes.prepare(lanes, wait=not self._runs):
            if self._lanes.needs_wider_program(lanes):
                self._save_all()  # if the new lanes do not fit into memory, all lanes are lost
            while self._waiting:
                self._admit(self._waiting[0])
                self._waiting.pop(0)

    def _admit(self, run: RunRequest) -> None:
        lane = self._lanes.admit(run.experiment, run.hyperparameters, run.state)
        epoch = self._lanes.progress(lane).epoch
        without_state = RunRequest(run.number, run.experiment, run.hyperparameters)  # the state's memory is needed
        self._runs.append(_ActiveRun(without_state, lane, next_snapshot_epoch(run.experiment, epoch), epoch))

    def _suspend(self, numbers: set[int]) -> None:
        for active in [active for active in self._runs if active.number in numbers]:
            if self._save_seconds < math.inf:
                self._save(active)
            self._release(active)
            self._post(RunSuspended(active.number))
        for run in [run for run in self._waiting if run.number in numbers]:
            self._waiting.remove(run)
            self._post(RunSuspended(run.number))

    def _train(self, stop: set[int]) -> None:
        # Not beyond the next snapshot of any lane.
        evaluations = min(self._chunk_sizer.evaluations, *map(self._evaluations_ahead, self._runs))
        with self._semaphore:
            if self._closed.is_set():  # while this thread waited for the semaphore
                return
            start = time.monotonic()
            with self._chunk_sizer.measure(evaluations):
                records = self._lanes.train_async(evaluations)
            self._on_chunk(ChunkTiming(start, time.monotonic(), len(self._runs)))
        failpoints.reach("chunk")
        for active in list(self._runs):
            self._post_update(active, records, stopped=active.number in stop)
        for active in self._runs:
            if time.monotonic() - active.saved_at >= self._save_seconds:
                self._save(active)

    def _evaluations_ahead(self, active: _ActiveRun) -> int:
        """Return the number of evaluations until the run's next snapshot or its end."""
        experiment = active.run.experiment
        until = int(min(active.next_snapshot, experiment.epochs))
        return (until - self._lanes.progress(active.lane).epoch) // experiment.evaluation_interval

    def _save_all(self) -> None:
        if self._save_seconds < math.inf:
            for active in self._runs:
                self._save(active)

    def _save(self, active: _ActiveRun) -> None:
        progress, active.saved_at = self._lanes.progress(active.lane), time.monotonic()
        if progress.epoch and progress.failed_epoch is None:
            self._post(RunSaved(active.number, progress.epoch, self._lanes.state(active.lane)))

    def _drop_all_out_of_memory(self, reason: str) -> None:
        """End all runs. Save those whose state is still that of their last update."""
        for active in self._runs:
            # The state of a chunk that was being computed is lost, since its memory was donated to the result.
            with contextlib.suppress(jax.errors.JaxRuntimeError, RuntimeError, MemoryError):
                state = self._lanes.state(active.lane)
                if 0 < active.reported_epoch == int(state["epoch"]) and self._save_seconds < math.inf:
                    self._post(RunSaved(active.number, active.reported_epoch, state))
        numbers = (*(active.number for active in self._runs), *(run.number for run in self._waiting))
        size = self._lanes.bytes_per_lane()
        self._runs, self._waiting = [], []
        self._lanes.clear()
        gc.collect()  # the error's frames form cycles that hold arrays on the device
        self._post(RunsOutOfMemory(numbers, size, reason))

    def _post_update(self, active: _ActiveRun, records: PendingRecords, stopped: bool) -> None:
        lane, experiment = active.lane, active.run.experiment
        progress, snapshot, final_state = self._lanes.progress(lane), None, None
        ended = progress.ended or stopped
        failed = progress.failed_epoch is not None
        if (ended or progress.epoch >= active.next_snapshot) and not failed:
            snapshot = WeightSnapshot(progress.epoch, self._lanes.spectrum(lane), self._lanes.weights(lane))
            active.next_snapshot = next_snapshot_epoch(experiment, progress.epoch)
        if ended:
            metrics = {} if failed else self._lanes.final_metrics(lane)
            final_state = FinalState(metrics, snapshot.weights if snapshot else {})
        speed = records.evaluations(lane) * experiment.evaluation_interval / max(self._chunk_sizer.seconds, 1e-9)
        self._post(RunUpdate(active.number, progress, speed, final_state, snapshot, records, lane))
        active.reported_epoch = progress.epoch
        if ended:
            self._release(active)

    def _release(self, active: _ActiveRun) -> None:
        self._lanes.release(active.lane)
        self._runs.remove(active)
