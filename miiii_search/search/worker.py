"""Trains trials: where search meets experiment.

Nothing here keeps a device waiting: a crew trains in threads of its own, this file's main thread claims, reports and
prunes by what the crew posts, and two more threads write: one what is known of trials that have ended, one
checkpoints. While the database is away all of them wait for it but the crew.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from miiii_search.experiment.capacity import choose_lanes
from miiii_search.experiment.checkpoint import Checkpoint
from miiii_search.experiment.crew import Crew
from miiii_search.experiment.device import describe_device, package_versions
from miiii_search.experiment.program import ProgramKey
from miiii_search.experiment.telemetry import Look, Record
from miiii_search.experiment.trainer import Chunk, Posted, Run, Saved, Update
from miiii_search.search import leases
from miiii_search.search.assignment import Assignment
from miiii_search.search.checkpoints import Policy
from miiii_search.search.ending import Ender
from miiii_search.search.leases import Lease
from miiii_search.search.patience import Away, Patience
from miiii_search.search.provenance import source_commit
from miiii_search.search.pruning import make_rule
from miiii_search.search.renewal import Renewer
from miiii_search.search.reporting import RETRIES_KEY, report
from miiii_search.search.sampling import SampledQueue
from miiii_search.search.saving import Saver
from miiii_search.search.spec import rungs
from miiii_search.search.study import Study, describe_point, shape_of

IDLE_SECONDS = 1.0
"""Between two looks at an empty queue, while others still train what may come back to it."""

LISTEN_SECONDS = 0.1
"""The longest that a worker does not notice that it was told to stop."""

GRACE_SECONDS = 10.0
"""How long a worker that was told to stop may take to save what it has and hand it back."""


class Worker:
    """Trains trials of one study until none is left, or until told to stop.

    `lanes` is how many at once; None measures how many are best. `checkpoints` says where and how often running
    trials are saved; None saves nothing, and a trial that is handed back begins anew. Snapshots of the weights at
    log-spaced epochs are kept in the folder `snapshots`, if there is one. `on_chunk` is told when devices computed.

    Raises `UserError` if the study was created by another version of this package, unless `any_version`.
    """

    def __init__(
        self,
        study: Study,
        lanes: int | None,
        say: Callable[[str], None] = lambda line: None,
        snapshots: Path | None = None,
        on_chunk: Callable[[Chunk], None] = lambda chunk: None,
        checkpoints: Policy | None = None,
        any_version: bool = False,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._study = study
        self._database = study.database
        self._capacity = lanes
        self._say = say
        self._snapshots = snapshots
        self._grace_seconds = grace_seconds
        self._optuna_study = study.load()
        self._rule = make_rule(study.spec, self._optuna_study)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        seed = int.from_bytes(os.urandom(4), "little")
        self._sampled = SampledQueue(study, seed) if study.spec.sampler != "queue" else None
        self._attributes: dict[str, Any] = {
            "worker": self.name,
            "device": describe_device(),
            "versions": package_versions(),
            "git_commit": source_commit(),
            **study.check_version(any_version),
        }
        self._patience = Patience(say)
        self._policy = checkpoints
        self._saver = Saver(study, checkpoints, say) if checkpoints else None
        self._crew = Crew(on_chunk=on_chunk, save_seconds=checkpoints.save_seconds if checkpoints else math.inf)
        self._ender = Ender(study, self._attributes, self._saver)
        self._runs: dict[int, Assignment] = {}
        """By the number that the crew knows a run by: a trial may come back to the worker that lost it."""
        self._started = 0
        self._empty_until = 0.0
        self._measuring: Future[tuple[int, str]] | None = None
        self._held_back: list[Run] = []

    def run(self, stop: threading.Event) -> None:
        """Works until the study has no trial left to give, or `stop` is set; then saves its trials and hands them
        back."""
        if self._saver is not None:
            self._saver.sweep()
        with Renewer(self._database, self._study.spec.lease_seconds) as renewer:
            try:
                while not stop.is_set():
                    self._fill()
                    if not self._runs:
                        if self._is_done():
                            return
                        stop.wait(IDLE_SECONDS)
                        continue
                    posted = self._listen()
                    # Of what was just read, so that the leases of what the crew has ended are renewed, too.
                    renewer.tell([a.heartbeat() for a in self._runs.values()])
                    self._sync(posted, renewer.lost)
            finally:
                self._drain(renewer)

    def _drain(self, renewer: Renewer) -> None:
        """Ends training, saves what was trained, and puts it back into the queue, within the grace period."""
        deadline = time.monotonic() + self._grace_seconds
        if self._saver is not None:
            self._saver.drain(deadline - self._grace_seconds / 4)
        # A chunk takes about a second. What is still being compiled then is left behind, with nothing lost.
        self._crew.close(self._grace_seconds / 2)
        # What ended in the meantime is not handed back. Of several trainers that failed, one has said so already.
        self._sync([p for p in self._posted(0) if not isinstance(p, BaseException)], renewer.lost)
        self._ender.close(deadline)
        if self._saver is not None:
            self._saver.close()
        held = [a.lease for a in self._runs.values() if a.written is None]
        if held:
            try:
                numbers = self._patience.attempt(lambda: leases.hand_back(self._database, held))
            except Away:
                self._say(f"{len(held)} trials go back to the queue when their leases run out")
            else:
                self._say(f"handed back {len(numbers)} trials: {', '.join(map(str, numbers))}")

    def _is_done(self) -> bool:
        try:
            return self._patience.attempt(self._study.is_done)
        except Away:
            return False

    def _fill(self) -> None:
        """Claims trials until all lanes are taken or the queue is empty."""
        if self._measuring is not None and self._measuring.done():
            self._capacity, why = self._measuring.result()
            self._measuring = None
            self._say(f"{self._capacity} lane{'s'[: self._capacity > 1]}: {why}")
            self._crew.admit(self._held_back)
        if self._measuring is not None or time.monotonic() < self._empty_until:
            return
        admitted: list[Run] = []
        training = sum(a.end is None for a in self._runs.values())
        while training + len(admitted) < (self._capacity or 1):
            try:
                run = self._patience.attempt(lambda: self._claim(admitted))
            except Away:
                break  # what was claimed in spite of it comes back when its lease runs out
            if run is None:
                self._empty_until = time.monotonic() + IDLE_SECONDS
                break
            admitted.append(run)
        if admitted and self._capacity is None:
            # In a thread: this compiles, which may take longer than a lease, and than anyone's patience.
            [run], self._held_back = admitted, admitted
            program = self._crew.program(ProgramKey.of(run.experiment, run.hyperparameters))
            self._measuring = _in_thread(lambda: choose_lanes(program, run.experiment, run.hyperparameters))
            return
        self._crew.admit(admitted)

    def _claim(self, admitted: list[Run]) -> Run | None:
        seconds = self._study.spec.lease_seconds
        keys = [*self._crew.keys, *(ProgramKey.of(run.experiment, run.hyperparameters) for run in admitted)]
        compiled = [shape_of(key.d_model, key.n_heads) for key in keys]
        lease = leases.claim(self._database, self._study.study_id, self.name, seconds, compiled)
        if lease is None and self._sampled is not None:
            lease = self._sampled.claim(self.name, seconds)
        if lease is None:
            return None
        trial = self._database.optuna.get_trial(lease.trial_id)
        experiment, hyperparameters = self._study.run_of(trial)
        assignment = Assignment(lease, experiment, hyperparameters, rungs(experiment))
        assignment.retries = int(trial.user_attrs.get(RETRIES_KEY, 0))
        saved = self._saver.load(assignment.lease.trial_id, experiment, hyperparameters) if self._saver else None
        at = ""
        if saved is not None:
            assignment.resume(saved)
            at = f" from epoch {saved.epoch:,}"
        self._started += 1
        self._runs[self._started] = assignment
        self._say(f"Trial {lease.number} starts{at}: {describe_point(trial.params)}")
        return Run(self._started, experiment, hyperparameters, saved.snapshot if saved else None)

    def _listen(self) -> list[Update | Saved]:
        """What the crew has posted, or nothing after a moment. Raises what made a trainer fail."""
        good = []
        for posted in self._posted(LISTEN_SECONDS):
            if isinstance(posted, BaseException):
                raise posted
            good.append(posted)
        return good

    def _posted(self, seconds: float) -> Iterator[Posted]:
        """All that there is, if there is something within so many seconds."""
        with contextlib.suppress(queue.Empty):
            yield self._crew.posted.get(timeout=seconds)
            while True:
                yield self._crew.posted.get_nowait()

    def _sync(self, posted: list[Update | Saved], lost: set[Lease]) -> None:
        """Reports, prunes and ends trials; drops those whose lease was lost."""
        for one in posted:
            if (assignment := self._runs.get(one.run)) is None:
                continue
            if isinstance(one, Saved):
                self._save(assignment, one)
            else:
                assignment.take(one)
                self._keep_weights(assignment, one.look)
        for assignment in self._runs.values():
            if assignment.saving is not None and assignment.saving.done():
                assignment.saved_epoch = assignment.saving.result() or assignment.saved_epoch
                assignment.saving = None
        training = {n: a for n, a in self._runs.items() if a.written is None}
        if any(a.reports or a.end or a.lease in lost for a in training.values()):
            self._report(training)
        if any(a.undecided for a in training.values()):
            self._prune()
        for number, assignment in list(self._runs.items()):
            if assignment.end is not None and assignment.written is None and not assignment.reports:
                self._crew.drop(number)
                assignment.written = self._ender.end(assignment)
            elif assignment.written is not None and assignment.written.done():
                del self._runs[number]
                if (note := assignment.written.result()) is not None:
                    self._say(note)

    def _report(self, training: Mapping[int, Assignment]) -> None:
        """Writes what waits to be written, as soon as the database can be reached."""
        reports = {a.lease: dict(a.reports) for a in training.values() if a.reports}
        heartbeats = [a.heartbeat() for a in training.values()]
        seconds = self._study.spec.lease_seconds
        try:
            held = self._patience.attempt(lambda: report(self._database, heartbeats, reports, seconds))
        except Away:
            return
        floor = self._study.spec.pruning_floor
        for number, assignment in training.items():
            if assignment.lease not in held:
                self._lose(number)
                continue
            assignment.undecided += [epoch for epoch in assignment.reports if epoch >= floor]
            assignment.reports = {}

    def _save(self, assignment: Assignment, saved: Saved) -> None:
        """Hands a checkpoint to the thread that writes them, unless it is still at the last one of this trial."""
        if self._saver is None or self._policy is None or assignment.end is not None:
            return
        if assignment.saving is not None and not self._saver.drains:
            return
        origin = {"epoch": saved.epoch, **{name: self._attributes[name] for name in ("device", "versions")}}
        checkpoint = Checkpoint(
            assignment.experiment,
            assignment.hyperparameters,
            saved.epoch,
            saved.snapshot,
            Record.concatenate(assignment.records),
            dict(assignment.spectra),
            {**origin, "seconds": assignment.seconds, "resumed": assignment.resumed()},
        )
        assignment.records = [checkpoint.record]
        assignment.saving = self._saver.save(assignment.heartbeat(), checkpoint)

    def _keep_weights(self, assignment: Assignment, look: Look | None) -> None:
        if self._snapshots is not None and look is not None:
            folder = self._snapshots / f"trial-{assignment.lease.number}"
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / f"epoch-{look.epoch}.npz", allow_pickle=False, **look.weights)

    def _lose(self, number: int) -> None:
        self._crew.drop(number)
        self._say(f"Trial {self._runs.pop(number).lease.number} was taken from this worker")

    def _prune(self) -> None:
        """Asks the rule about every lane that has passed a rung at or above the floor."""
        asked = {a.lease.trial_id: (n, a) for n, a in self._runs.items() if a.undecided and a.end is None}
        if asked and self._study.spec.pruning.rule != "none":
            try:
                trials = self._patience.attempt(lambda: self._optuna_study.get_trials(deepcopy=False))
            except Away:
                return
            for trial in trials:
                if trial._trial_id not in asked:
                    continue
                number, assignment = asked[trial._trial_id]
                for epoch in assignment.undecided:
                    if assignment.pruned is None:
                        assignment.pruned = self._rule.decide(trial, trials, epoch)
                if assignment.pruned is not None:
                    self._crew.stop(number)
        for assignment in self._runs.values():
            assignment.undecided = []


def _in_thread(work: Callable[[], tuple[int, str]]) -> Future[tuple[int, str]]:
    """What a thread comes to that may be left behind: compiling cannot be interrupted."""
    future: Future[tuple[int, str]] = Future()

    def main() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=main, name="measuring", daemon=True).start()
    return future
