"""The worker: the main loop that claims trials of a study, has them trained, and writes their results.

A device never waits for the database or the disk. The trainer pool trains in threads of its own. The main thread
claims trials, and reports and prunes them by what the pool posts. Two more threads write: one the results of trials
that have ended, one checkpoints. While the database is unavailable, all of them wait except the pool.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator

from miiii_search.errors import AccessRefusedError, StorageUnavailableError
from miiii_search.metrics.prometheus import SILENT_SECONDS_HELP, Metric, WorkerCounters
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.study import Study
from miiii_search.training.device import describe_device, package_versions
from miiii_search.training.numerics import describe_numerics
from miiii_search.training.trainer_messages import ChunkTiming, TrainerEvent
from miiii_search.training.trainer_pool import TrainerPool
from miiii_search.worker.budget_watch import BudgetWatch, LongestChunk
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.fetcher import IDLE_SECONDS, TrialFetcher
from miiii_search.worker.heartbeat import HeartbeatThread
from miiii_search.worker.lane_tuner import LaneTuner
from miiii_search.worker.lease_returner import LeaseReturner
from miiii_search.worker.life_events import NotWritten, Returned, StudyPaused, TrainersClosed, WorkerStopping
from miiii_search.worker.name import worker_name
from miiii_search.worker.options import WorkerOptions
from miiii_search.worker.provenance import source_commit
from miiii_search.worker.snapshot_writer import SnapshotWriter
from miiii_search.worker.study_watch import StudyWatch
from miiii_search.worker.trial_manager import RunEvent, TrialManager

logger = logging.getLogger(__name__)

EVENT_SECONDS = 0.1
"""Longest wait for an event of the trainer pool, in seconds. A worker that is told to stop notices it within it."""


class Worker:
    """Trains trials of one study until none is left, or until it is told to stop.

    Args:
        study: The study.
        lanes: Number of trials that are trained at once; None measures how many train fastest.
        options: Name, checkpoints, snapshots and the like.
        trainers: The pool that trains. A simulation brings its own.
        on_chunk: Called by the trainers' threads with the timing of every chunk. Not called if `trainers` is given.
        on_turn: Called at each turn of the main loop.
        counters: Counters of the metrics. Several workers of a process, one after another, may share them.

    Raises:
        VersionMismatchError: This version trains runs differently than the study's, and `options.any_version` is false.
        MiiiiSearchError: The name is too long or not printable.
    """

    def __init__(
        self,
        study: Study,
        lanes: int | None,
        options: WorkerOptions | None = None,
        *,
        trainers: TrainerPool | None = None,
        on_chunk: Callable[[ChunkTiming], None] = lambda chunk: None,
        on_turn: Callable[[], None] = lambda: None,
        counters: WorkerCounters | None = None,
    ) -> None:
        options = options or WorkerOptions()
        checkpoints = options.checkpoints
        self.name = worker_name(options.name, study.database.url.username)
        self._study = study
        self._grace_seconds = options.grace_seconds
        self._on_turn = on_turn
        self._counters = counters or WorkerCounters()
        attributes = {
            "worker": self.name,
            "device": describe_device(),
            "versions": package_versions(),
            "numerics": describe_numerics(),
            "git_commit": source_commit(),
            **study.check_version(options.any_version),
        }
        log_fields = {"study": study.name, "worker": self.name}
        # A worker whose login is refused for as long as a lease lasts has lost its trials to other workers.
        retry = DatabaseRetry(refusal_seconds=study.spec.lease_seconds)
        longest_chunk = LongestChunk(on_chunk)
        save_seconds = checkpoints.save_seconds if checkpoints else math.inf
        self._trainers = trainers or TrainerPool(on_chunk=longest_chunk, save_seconds=save_seconds)
        self._checkpoint_writer = CheckpointWriter(study, checkpoints) if checkpoints else None
        snapshots = SnapshotWriter(options.snapshots, study) if options.snapshots else None
        tuner = LaneTuner(lanes, self._trainers, log_fields)
        self._manager = TrialManager(
            study,
            self._trainers,
            tuner,
            retry,
            checkpoint_writer=self._checkpoint_writer,
            snapshot_writer=snapshots,
            counters=self._counters,
            attributes=attributes,
        )
        self._fetcher = TrialFetcher(
            study,
            log_fields,
            tuner,
            self._trainers,
            self._checkpoint_writer,
            retry,
            seed=int.from_bytes(os.urandom(4), "little"),
        )
        self._budget = BudgetWatch(study, self._trainers.devices, longest_chunk, retry)
        self._watch = StudyWatch(study, self._budget, self._fetcher, retry, log_fields)
        self._leases = LeaseReturner(study, retry, checkpoints.folder if checkpoints else None, log_fields)

    def run(self, stop: threading.Event) -> None:
        """Work until the study has no trial left, or until `stop` is set; then return the unfinished trials.

        Args:
            stop: Tells the worker to save its trials and to return them to the queue, from any thread.

        Raises:
            AccessRefusedError: The database has refused the login for the duration of a lease.
            MiiiiSearchError: The study was deleted, or none of its trials fits into the memory of this machine.
        """
        self._leases.return_leftovers()
        if self._checkpoint_writer is not None:
            self._checkpoint_writer.sweep()
        with HeartbeatThread(self._study.queue, self._study.spec.lease_seconds, self._counters) as heartbeats:
            try:
                while not stop.is_set() and not self._take_turn(stop, heartbeats):
                    pass
            finally:
                self._drain(heartbeats)

    def metrics(self) -> list[Metric]:
        """Return what the worker is doing. May be called by any thread."""
        trials, counters = list(self._manager.trials.values()), self._counters
        training = [trial for trial in trials if trial.is_training]
        seconds = time.monotonic() - counters.wrote_at
        return [
            Metric("miiii_lane_epochs", "Epochs that lanes have trained", counters.lane_epochs, is_total=True),
            Metric(
                "miiii_lane_epochs_per_second",
                "Epochs per second of all lanes together",
                sum(trial.history.epochs_per_second for trial in training),
            ),
            Metric("miiii_lanes", "Maximum number of lanes of the worker", self._fetcher.lanes),
            Metric("miiii_lanes_busy", "Lanes that hold a trial", len(training)),
            Metric(
                "miiii_reports_waiting",
                "Reports that are not written yet",
                sum(len(trial.reports.pending) for trial in trials),
            ),
            Metric("miiii_database_silent_seconds", SILENT_SECONDS_HELP, seconds),
            Metric(
                "miiii_device_seconds",
                "Seconds that devices were held, times their number",
                counters.device_seconds,
                is_total=True,
            ),
        ]

    def _take_turn(self, stop: threading.Event, heartbeats: HeartbeatThread) -> bool:
        """Take one turn of the main loop. Return whether the worker has nothing left to do."""
        trials = self._manager.trials
        self._on_turn()
        self._watch.refresh()
        if self._watch.is_paused:
            self._manager.tell_all(StudyPaused())
        reason = self._budget.stop_reason(holds_devices=bool(trials) or not self._watch.is_paused)
        if reason is not None:
            logger.info(reason, extra={"study": self._study.name, "worker": self.name})
            return True
        if self._budget.may_claim:
            self._manager.add(self._fetcher.fill(trials.values()))
        self._counters.hold(self._trainers.devices if trials else 0)
        if not trials:
            if self._watch.is_done():
                return True
            stop.wait(IDLE_SECONDS)
            return False
        self._watch.forget_idle_reason()
        events = self._next_events()
        # After the events were read, so that the leases of runs that have just ended are renewed, too.
        heartbeats.update([trial.heartbeat() for trial in trials.values()])
        self._manager.process(events, heartbeats.lost)
        return False

    def _drain(self, heartbeats: HeartbeatThread) -> None:
        """End training, save the trials, and return them to the queue, within the grace period."""
        deadline = time.monotonic() + self._grace_seconds
        if self._checkpoint_writer is not None:
            self._checkpoint_writer.drain(deadline - self._grace_seconds / 4)
        self._manager.tell_all(WorkerStopping())
        # A chunk takes about a second. A program that is still being compiled then is abandoned. Nothing is lost.
        self._trainers.close(self._grace_seconds / 2)
        # Trials that have ended meanwhile are not returned. If several trainers failed, one has raised its error.
        events = [event for event in self._posted_events(0) if not isinstance(event, BaseException)]
        self._manager.process(events, heartbeats.lost)
        self._manager.close(deadline)
        if self._checkpoint_writer is not None:
            self._checkpoint_writer.close()
        self._manager.tell_all(TrainersClosed())
        held = self._manager.held_leases()
        try:
            if held:
                self._leases.requeue(held, min(deadline, time.monotonic() + self._grace_seconds / 4))
                self._manager.tell_all(Returned())
            self._budget.release_unless_spent()
        except (StorageUnavailableError, AccessRefusedError):
            if held := self._manager.held_leases():
                self._leases.leave(held)
        self._manager.tell_all(NotWritten())

    def _next_events(self) -> list[RunEvent]:
        """Return what the pool has posted, or nothing after a moment. Raise the error of a trainer that failed."""
        events: list[RunEvent] = []
        for event in self._posted_events(EVENT_SECONDS):
            if isinstance(event, BaseException):
                raise event
            events.append(event)
        return events

    def _posted_events(self, seconds: float) -> Iterator[TrainerEvent]:
        """Yield all posted events. Wait up to `seconds` for the first one."""
        with contextlib.suppress(queue.Empty):
            yield self._trainers.events.get(timeout=seconds)
            while True:
                yield self._trainers.events.get_nowait()
