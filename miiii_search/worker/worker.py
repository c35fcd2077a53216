"""Trains trials: where search meets experiment.

Nothing here keeps a device waiting. A trainer pool trains in threads of its own. The main thread claims, reports and
prunes by what the pool posts. Two more threads write: one the results of trials that have ended, one checkpoints.
While the database is away all of them wait for it but the pool.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from miiii_search.errors import AccessRefusedError, StorageUnavailableError, reason
from miiii_search.experiment.record import WeightSnapshot, write_snapshot
from miiii_search.metrics.prometheus import Metric, WorkerCounters
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.hints import hint
from miiii_search.study.snapshots import claim_folder, trial_folder
from miiii_search.study.state import describe_pause
from miiii_search.study.study import Study
from miiii_search.training.device import describe_device, package_versions
from miiii_search.training.numerics import describe_numerics
from miiii_search.training.trainer_messages import (
    ChunkTiming,
    RunSaved,
    RunsOutOfMemory,
    RunSuspended,
    RunUpdate,
    TrainerEvent,
)
from miiii_search.training.trainer_pool import TrainerPool
from miiii_search.trial_queue.abandoned import describe_abandoned, find_abandoned
from miiii_search.trial_queue.budget import BudgetReservation
from miiii_search.trial_queue.leases import Lease
from miiii_search.trial_queue.requeue import requeue_leases
from miiii_search.trial_queue.results import report
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.checkpoints import Policy
from miiii_search.worker.fetcher import IDLE_SECONDS, TrialFetcher
from miiii_search.worker.finalizer import TrialFinalizer
from miiii_search.worker.heartbeat import HeartbeatThread
from miiii_search.worker.name import worker_name
from miiii_search.worker.provenance import source_commit
from miiii_search.worker.pruning import PruningEvaluator
from miiii_search.worker.unreturned_leases import UnreturnedLeases

logger = logging.getLogger(__name__)

LISTEN_SECONDS = 0.1
"""The longest that a worker does not notice that it was told to stop."""

PAUSED_ADVICE = "this worker waits until it is resumed"

NOTHING = "nothing to train for now"

AWAITS_SELECTION = (
    f"{NOTHING}: once every configuration was run, the coordinator queues further seeds of the best; "
    "if none runs, start one"
)

LOOK_SECONDS = 5.0
"""At most, and a quarter of a lease, between two looks at whether the study was paused or extended."""

GRACE_SECONDS = 10.0
"""How long a worker that was told to stop may take to save what it has and hand it back."""


class Worker:
    """Trains trials of one study until none is left, or until told to stop.

    `lanes` is how many at once; None measures how many are best. `checkpoints` says where and how often running
    trials are saved; None saves nothing, and a trial that is handed back begins anew. Snapshots of the weights at
    log-spaced epochs are kept below `snapshots`, if given, in a folder of the study's own. `on_chunk` is told when
    devices computed.
    `trainers` trains; a simulation brings its own. `on_turn` is called at each turn of the main loop.
    `counters` goes on from the process's worker before this one. `name` is what people call it, see `worker_name`.

    Raises `VersionMismatchError` if this version trains runs differently than the study's, unless `any_version`.
    """

    def __init__(
        self,
        study: Study,
        lanes: int | None,
        snapshots: Path | None = None,
        on_chunk: Callable[[ChunkTiming], None] = lambda chunk: None,
        checkpoints: Policy | None = None,
        any_version: bool = False,
        grace_seconds: float = GRACE_SECONDS,
        trainers: TrainerPool | None = None,
        on_turn: Callable[[], None] = lambda: None,
        counters: WorkerCounters | None = None,
        name: str | None = None,
    ) -> None:
        self._study = study
        self._database = study.database
        self._snapshots = snapshots
        if snapshots is not None:
            with contextlib.suppress(OSError):  # each snapshot that cannot be written is logged
                claim_folder(snapshots, study)
        self._grace_seconds = grace_seconds
        self._pruning = PruningEvaluator(study)
        self.name = worker_name(name, study.database.url.username)
        self._log_fields = {"study": study.name, "worker": self.name}
        seed = int.from_bytes(os.urandom(4), "little")
        self._attributes: dict[str, Any] = {
            "worker": self.name,
            "device": describe_device(),
            "versions": package_versions(),
            "numerics": describe_numerics(),
            "git_commit": source_commit(),
            **study.check_version(any_version),
        }
        self._on_turn = on_turn
        # Refused for as long as a lease lasts, this worker has lost its trials to others.
        self._retry = DatabaseRetry(refusal_seconds=study.spec.lease_seconds)
        self._policy = checkpoints
        self._checkpoint_writer = CheckpointWriter(study, checkpoints) if checkpoints else None
        self._unreturned = UnreturnedLeases(checkpoints.folder, study.database) if checkpoints else None
        self._on_chunk = on_chunk
        self._longest_chunk = 0.0
        save_seconds = checkpoints.save_seconds if checkpoints else math.inf
        self._trainers = trainers or TrainerPool(on_chunk=self._time, save_seconds=save_seconds)
        self._fetcher = TrialFetcher(
            study, self.name, lanes, self._trainers, self._checkpoint_writer, self._retry, seed
        )
        self._reservation = BudgetReservation(study.database, study.study_id, study.spec.budget, self._trainers.devices)
        self._finalizer = TrialFinalizer(study, self._attributes, self._checkpoint_writer)
        self._look_at = 0.0
        self._was_paused = False
        self._why_it_waits: str | None = None
        self._counters = counters or WorkerCounters()
        self._runs: dict[int, ActiveTrial] = {}
        """By the number that the pool knows a run by: a trial may come back to the worker that lost it."""

    def run(self, stop: threading.Event) -> None:
        """Works until the study has no trial left to give, or `stop` is set; then saves its trials and hands them
        back. Raises `AccessRefusedError` once the database has refused the login for the time of a lease."""
        if self._unreturned is not None and (numbers := self._unreturned.hand_back()):
            self._info(f"handed back {_listed(numbers)} for a worker that stopped while the database was away")
        if self._checkpoint_writer is not None:
            self._checkpoint_writer.sweep()
        with HeartbeatThread(self._database, self._study.spec.lease_seconds, self._counters) as heartbeats:
            try:
                while not stop.is_set():
                    self._on_turn()
                    self._look()
                    if (over := self._over_budget()) is not None:
                        self._info(over)
                        return
                    if self._reservation.may_claim:
                        self._runs |= self._fetcher.fill(self._runs.values())
                    self._counters.hold(self._trainers.devices if self._runs else 0)
                    if not self._runs:
                        if self._rest():
                            return
                        stop.wait(IDLE_SECONDS)
                        continue
                    self._why_it_waits = None
                    posted = self._listen()
                    # Of what was just read, so that the leases of what the pool has ended are renewed, too.
                    heartbeats.update([a.heartbeat() for a in self._runs.values()])
                    self._sync(posted, heartbeats.lost)
            finally:
                self._drain(heartbeats)

    def _look(self) -> None:
        """Sees, from time to time, whether the study was paused or extended; while it is paused, has what is trained
        saved and handed back. Raises `MiiiiSearchError` if it was deleted."""
        if time.monotonic() >= self._look_at:
            with contextlib.suppress(StorageUnavailableError):  # then at another time
                self._retry.attempt(self._study.refresh)
            self._look_at = time.monotonic() + min(LOOK_SECONDS, self._study.spec.lease_seconds / 4)
            self._reservation.set_budget(self._study.spec.budget)
        if self._study.paused != self._was_paused:
            self._was_paused = self._study.paused
            words = describe_pause(self._study.name, self._was_paused)
            self._info(f"{words}: {PAUSED_ADVICE}" if self._was_paused else words)
        if self._was_paused:
            for number, assignment in self._runs.items():
                if assignment.trains and not assignment.suspended:
                    assignment.suspended = self._trainers.suspend(number)

    def metrics(self) -> list[Metric]:
        """What the worker is doing, for any thread to read."""
        runs, counters = list(self._runs.values()), self._counters
        training = [a for a in runs if a.trains]
        seconds = time.monotonic() - counters.wrote_at
        return [
            Metric("miiii_lane_epochs", "Epochs that lanes have trained", counters.lane_epochs, is_total=True),
            Metric(
                "miiii_lane_epochs_per_second",
                "Epochs that all lanes train a second",
                sum(a.epochs_per_second for a in training),
            ),
            Metric("miiii_lanes", "Lanes that the worker fills at most", self._fetcher.lanes),
            Metric("miiii_lanes_busy", "Lanes that hold a trial", len(training)),
            Metric("miiii_reports_waiting", "Reports not written yet", sum(len(a.reports) for a in runs)),
            Metric("miiii_database_silent_seconds", "Since the last write or look that succeeded", seconds),
            Metric("miiii_device_seconds", "Seconds times devices held", counters.device_seconds, is_total=True),
        ]

    def _drain(self, heartbeats: HeartbeatThread) -> None:
        """Ends training, saves what was trained, and puts it back into the queue, within the grace period."""
        deadline = time.monotonic() + self._grace_seconds
        if self._checkpoint_writer is not None:
            self._checkpoint_writer.drain(deadline - self._grace_seconds / 4)
        # A chunk takes about a second. What is still being compiled then is left behind, with nothing lost.
        self._trainers.close(self._grace_seconds / 2)
        # What ended in the meantime is not handed back. Of several trainers that failed, one has said so already.
        self._sync([p for p in self._posted(0) if not isinstance(p, BaseException)], heartbeats.lost)
        self._finalizer.close(deadline)
        if self._checkpoint_writer is not None:
            self._checkpoint_writer.close()
        held = [a.lease for a in self._runs.values() if a.written is None]
        try:
            if held:
                numbers = self._hand_back(held, min(deadline, time.monotonic() + self._grace_seconds / 4))
                self._info(f"handed back {_listed(numbers)}")
            if self._reservation.stop_reason(self._margin) is None:
                self._retry.attempt(self._reservation.release)
        except (StorageUnavailableError, AccessRefusedError):
            if held:
                logger.warning(self._leave(held), extra=self._log_fields)

    def _hand_back(self, held: list[Lease], deadline: float) -> list[int]:
        """Hands trials back, and tries again until the deadline: the database may be starting.

        Raises `StorageUnavailableError`.
        """
        while True:
            self._retry.skip_wait()  # a pause between two tries may be longer than what is left
            try:
                return self._retry.attempt(lambda: requeue_leases(self._database, held))
            except StorageUnavailableError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(min(IDLE_SECONDS, max(deadline - time.monotonic(), 0.0)))

    def _leave(self, held: list[Lease]) -> str:
        """Leaves trials to the next worker of this machine, and says so."""
        if self._unreturned is not None:
            try:
                self._unreturned.save(held)
            except OSError as error:
                logger.warning(
                    f"cannot record which trials were not handed back: {error.strerror}", extra=self._log_fields
                )
            else:
                return (
                    f"the database does not answer: {_listed([lease.number for lease in held])} will be handed back "
                    "by the next worker of this machine, or when their leases run out"
                )
        return f"{len(held)} trials go back to the queue when their leases run out"

    def _over_budget(self) -> str | None:
        """Why training is to end, if it is; asks the database from time to time."""
        if self._reservation.needs_update(self._margin) and (self._runs or not self._was_paused):
            with contextlib.suppress(StorageUnavailableError):  # what was reserved may be used meanwhile
                self._retry.attempt(lambda: self._reservation.update(self._margin))
        return self._reservation.stop_reason(self._margin)

    @property
    def _margin(self) -> float:
        """Seconds before the end of a budget at which training is to end: chunks under way go on to their ends."""
        return 1.0 + 2.0 * self._longest_chunk

    def _time(self, chunk: ChunkTiming) -> None:
        self._longest_chunk = max(self._longest_chunk, chunk.end - chunk.start)
        self._on_chunk(chunk)

    def _rest(self) -> bool:
        """Whether the study is done, where there is nothing to train.

        Raises `MiiiiSearchError` if what waits never fits.
        """
        try:
            self._retry.attempt(self._reservation.release)
            if self._retry.attempt(self._study.is_done):
                return True
            self._retry.attempt(self._fetcher.check_fit)
            if not self._was_paused:
                self._log_why_it_waits(*self._retry.attempt(self._find_why_it_waits))
        except StorageUnavailableError:
            pass
        return False

    def _log_why_it_waits(self, reason: str, words: str) -> None:
        """Logs why there is nothing to train, unless that was logged last and the reason is still the same."""
        if words and reason != self._why_it_waits:
            self._info(words)
        self._why_it_waits = reason

    def _find_why_it_waits(self) -> tuple[str, str]:
        """Why there is nothing to train in a study that is not done: a name of the reason, and what to say of it."""
        study = self._study
        coordinate = hint("coordinate", "--study", study.name, database=self._database)
        with self._database.engine.connect() as connection:
            abandoned = find_abandoned(connection, study.study_id)
        if abandoned:
            told = f"{NOTHING}: {describe_abandoned(abandoned)}; start one: {coordinate}"
            return f"abandoned {[trial.number for trial in abandoned]}", told
        counts = study.counts()
        if counts[TrialState.WAITING]:
            return "waiting", ""  # it was about to claim one, or one does not fit, which the fetcher has said
        if counts[TrialState.RUNNING]:
            return "others", f"{NOTHING}: the trials that are left run on other workers; what comes back is taken over"
        if study.awaits_selection:
            return "selection", f"{AWAITS_SELECTION}: {coordinate}"
        return "nothing", ""

    def _listen(self) -> list[RunUpdate | RunSaved | RunSuspended | RunsOutOfMemory]:
        """What the pool has posted, or nothing after a moment. Raises what made a trainer fail."""
        good = []
        for posted in self._posted(LISTEN_SECONDS):
            if isinstance(posted, BaseException):
                raise posted
            good.append(posted)
        return good

    def _posted(self, seconds: float) -> Iterator[TrainerEvent]:
        """All that there is, if there is something within so many seconds."""
        with contextlib.suppress(queue.Empty):
            yield self._trainers.events.get(timeout=seconds)
            while True:
                yield self._trainers.events.get_nowait()

    def _sync(self, posted: list[RunUpdate | RunSaved | RunSuspended | RunsOutOfMemory], lost: set[Lease]) -> None:
        """Reports, prunes and ends trials; drops those whose lease was lost."""
        for one in posted:
            if isinstance(one, RunsOutOfMemory):
                self._shrink(one)
                continue
            if (assignment := self._runs.get(one.run)) is None:
                continue
            if isinstance(one, RunSaved):
                self._save(assignment, one)
            elif isinstance(one, RunSuspended):
                self._trainers.drop(one.run)
                assignment.given_up = True
            else:
                self._counters.lane_epochs += max(one.progress.epoch - assignment.progress.epoch, 0)
                assignment.take(one)
                self._keep_weights(assignment, one.weight_snapshot)
        for assignment in self._runs.values():
            if assignment.saving is not None and assignment.saving.done():
                assignment.saved_epoch = assignment.saving.result() or assignment.saved_epoch
                assignment.saving = None
        training = {n: a for n, a in self._runs.items() if a.written is None}
        # The others' leases are renewed by the thread that does nothing else.
        told = {n: a for n, a in training.items() if a.reports or a.end or a.lease in lost}
        if told:
            self._report(told)
        if any(a.undecided for a in training.values()):
            self._prune()
        for number, assignment in list(self._runs.items()):
            if assignment.given_up and assignment.saving is None:
                self._return(number)
            elif assignment.end is not None and assignment.written is None and not assignment.reports:
                self._trainers.drop(number)
                assignment.written = self._finalizer.end(assignment)
            elif assignment.written is not None and assignment.written.done():
                del self._runs[number]
                if (note := assignment.written.result()) is not None:
                    self._info(note, trial=assignment.lease.number, epoch=assignment.progress.epoch)

    def _report(self, told: Mapping[int, ActiveTrial]) -> None:
        """Writes what waits to be written, as soon as the database can be reached."""
        reports = {a.lease: dict(a.reports) for a in told.values() if a.reports}
        heartbeats = [a.heartbeat() for a in told.values()]
        seconds = self._study.spec.lease_seconds
        try:
            held = self._retry.attempt(lambda: report(self._database, heartbeats, reports, seconds))
        except StorageUnavailableError:
            return
        self._counters.wrote_at = time.monotonic()
        floor = self._study.spec.pruning_floor
        for number, assignment in told.items():
            if assignment.lease not in held:
                self._lose(number)
                continue
            assignment.undecided += [epoch for epoch in assignment.reports if epoch >= floor]
            assignment.reports = {}

    def _save(self, assignment: ActiveTrial, saved: RunSaved) -> None:
        """Hands a checkpoint to the thread that writes them, unless it is still at the last one of this trial."""
        if self._checkpoint_writer is None or self._policy is None or assignment.end is not None:
            return
        is_last = assignment.suspended or self._checkpoint_writer.drains
        if assignment.saving is not None and not is_last:
            return
        checkpoint = assignment.checkpoint(
            saved, {name: self._attributes[name] for name in ("device", "versions", "numerics")}
        )
        assignment.saving = self._checkpoint_writer.save(assignment.heartbeat(), checkpoint, is_last)

    def _shrink(self, event: RunsOutOfMemory) -> None:
        """Has runs that did not fit handed back, once what is left of them is saved."""
        training = sum(a.trains for a in self._runs.values())
        hit = [self._runs[number] for number in event.runs if number in self._runs]
        self._fetcher.shrink(event, hit, training)
        for number in event.runs:
            self._trainers.drop(number)
        for assignment in hit:
            assignment.given_up = True

    def _return(self, number: int) -> None:
        """Hands one trial back to the queue."""
        with contextlib.suppress(StorageUnavailableError):  # then at another time
            lease = self._runs[number].lease
            self._retry.attempt(lambda: requeue_leases(self._database, [lease]))
            del self._runs[number]

    def _keep_weights(self, assignment: ActiveTrial, look: WeightSnapshot | None) -> None:
        if self._snapshots is None or look is None:
            return
        try:
            write_snapshot(trial_folder(self._snapshots, self._study, assignment.lease.number), look)
        except OSError as error:
            logger.warning(
                f"the snapshot of trial {assignment.lease.number} at epoch {look.epoch:,} was not written: "
                f"{reason(error)}",
                extra=self._log_fields | {"trial": assignment.lease.number, "epoch": look.epoch},
            )

    def _lose(self, number: int) -> None:
        self._trainers.drop(number)
        trial = self._runs.pop(number).lease.number
        logger.warning(f"Trial {trial} was taken from this worker", extra=self._log_fields | {"trial": trial})

    def _info(self, message: str, **fields: object) -> None:
        logger.info(message, extra={**self._log_fields, **fields})

    def _prune(self) -> None:
        """Has the rule decide about every lane that has passed a rung at or above the floor."""
        with contextlib.suppress(StorageUnavailableError):  # then at another time
            self._retry.attempt(lambda: self._pruning.evaluate(self._runs.values()))
        for number, assignment in self._runs.items():
            if assignment.pruned is not None and assignment.end is None:
                self._trainers.stop(number)


def _listed(numbers: Collection[int]) -> str:
    return f"{len(numbers)} trial{'s' * (len(numbers) != 1)}: {', '.join(map(str, numbers))}"
