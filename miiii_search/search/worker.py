"""Trains trials: where search meets experiment.

Nothing here keeps a device waiting: a crew trains in threads of its own, this file's main thread claims, reports and
prunes by what the crew posts, and a third thread draws and writes what is known of trials that have ended.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial

from miiii_search.experiment.capacity import choose_lanes
from miiii_search.experiment.crew import Crew, Numbered
from miiii_search.experiment.device import describe_device, package_versions
from miiii_search.experiment.metrics import mean_accuracy
from miiii_search.experiment.program import ProgramKey
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.stores import Progress
from miiii_search.experiment.telemetry import Floats, Look, Record
from miiii_search.experiment.trainer import Chunk, End, Posted, Update
from miiii_search.search import leases
from miiii_search.search.ending import outcome
from miiii_search.search.leases import Heartbeat, Lease
from miiii_search.search.provenance import source_commit
from miiii_search.search.pruning import make_rule
from miiii_search.search.renewal import Renewer
from miiii_search.search.reporting import finish, report
from miiii_search.search.sampling import SampledQueue
from miiii_search.search.spec import rungs
from miiii_search.search.study import Study, describe_point, shape_of

IDLE_SECONDS = 1.0
"""Between two looks at an empty queue, while others still train what may come back to it."""

LISTEN_SECONDS = 0.1
"""The longest that a worker does not notice that it was told to stop."""

CLOSE_SECONDS = 10.0
"""How long the chunks that are under way may take to end, once a worker was told to stop."""


@dataclass
class Assignment:
    """A trial that is trained, or that has ended and is being written."""

    lease: Lease
    experiment: Experiment
    hyperparameters: Hyperparameters
    rungs: list[int]
    """Still ahead."""
    started: float = field(default_factory=time.monotonic)
    records: list[Record] = field(default_factory=list)
    spectra: dict[int, Floats] = field(default_factory=dict)
    """By epoch. Not the weights beside them: of a full worker those are gigabytes."""
    progress: Progress = field(default_factory=lambda: Progress(0, None, None, ended=False))
    epochs_per_second: float = 0.0
    pruned: str | None = None
    """Why the trial is given up."""
    end: End | None = None
    written: Future[str | None] | None = None
    """The note of the trial's end, or None if its lease was lost."""

    def heartbeat(self) -> Heartbeat:
        """What the lease is renewed with."""
        return Heartbeat(self.lease, self.progress.epoch, self.epochs_per_second)

    def take(self, update: Update) -> dict[int, float]:
        """Takes what was trained; returns the accuracy at each rung that was reached."""
        record = update.record()
        self.progress, self.end, self.epochs_per_second = update.progress, update.end, update.epochs_per_second
        self.records.append(record)
        if update.look is not None:
            self.spectra[update.look.epoch] = update.look.spectrum
        if self.progress.ended:  # by itself, before it could be given up
            self.pruned = None
        reached = {}
        for epoch, accuracy in zip(record.epoch, record.validation_accuracy, strict=True):
            if self.rungs and epoch >= self.rungs[0]:
                self.rungs.pop(0)
                reached[int(epoch)] = mean_accuracy(self.experiment, accuracy)
        if self.end is not None and len(record) and int(record.epoch[-1]) not in reached:
            reached[int(record.epoch[-1])] = mean_accuracy(self.experiment, record.validation_accuracy[-1])
        return reached


class Worker:
    """Trains trials of one study until none is left, or until told to stop.

    `lanes` is how many at once; None measures how many are best. Snapshots of the weights at log-spaced epochs
    are kept in the folder `snapshots`, if there is one. `on_chunk` is told when devices computed.
    """

    def __init__(
        self,
        study: Study,
        lanes: int | None,
        say: Callable[[str], None] = lambda line: None,
        snapshots: Path | None = None,
        on_chunk: Callable[[Chunk], None] = lambda chunk: None,
    ) -> None:
        self._study = study
        self._database = study.database
        self._capacity = lanes
        self._say = say
        self._snapshots = snapshots
        self._optuna_study = study.load()
        self._rule = make_rule(study.spec, self._optuna_study)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        seed = int.from_bytes(os.urandom(4), "little")
        self._sampled = SampledQueue(study, seed) if study.spec.sampler != "queue" else None
        self._crew = Crew(on_chunk=on_chunk)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._runs: dict[int, Assignment] = {}
        """By the number that the crew knows a run by: a trial may come back to the worker that lost it."""
        self._started = 0
        self._empty_until = 0.0
        self._attributes = {
            "worker": self.name,
            "device": describe_device(),
            "versions": package_versions(),
            "git_commit": source_commit(),
        }

    def run(self, stop: threading.Event) -> None:
        """Works until the study has no trial left to give, or `stop` is set; then hands its trials back."""
        with Renewer(self._database, self._study.spec.lease_seconds) as renewer:
            try:
                while not stop.is_set():
                    self._fill(renewer)
                    if not self._runs:
                        if self._study.is_done():
                            return
                        stop.wait(IDLE_SECONDS)
                        continue
                    updates = self._listen()
                    # Of what was just read, so that the leases of what the crew has ended are renewed, too.
                    renewer.tell([a.heartbeat() for a in self._runs.values()])
                    self._sync(updates, renewer.lost)
                self._crew.close(CLOSE_SECONDS)
                self._sync(self._listen(), renewer.lost)  # what ended in the meantime is not handed back
            finally:
                self._crew.close(CLOSE_SECONDS)
                self._writer.shutdown()
                held = [a.lease for a in self._runs.values() if a.written is None]
                if held:
                    numbers = leases.hand_back(self._database, held)
                    self._say(f"handed back {len(numbers)} trials: {', '.join(map(str, numbers))}")

    def _fill(self, renewer: Renewer) -> None:
        """Claims trials until all lanes are taken or the queue is empty."""
        if time.monotonic() < self._empty_until:
            return
        admitted: list[Numbered] = []
        training = sum(a.end is None for a in self._runs.values())
        while training + len(admitted) < (self._capacity or 1):
            lease = self._claim([ProgramKey.of(experiment, h) for _, experiment, h in admitted])
            if lease is None:
                self._empty_until = time.monotonic() + IDLE_SECONDS
                break
            trial = self._database.optuna.get_trial(lease.trial_id)
            experiment, hyperparameters = self._study.run_of(trial)
            self._started += 1
            self._runs[self._started] = Assignment(lease, experiment, hyperparameters, rungs(experiment))
            admitted.append((self._started, experiment, hyperparameters))
            self._say(f"Trial {lease.number} starts: {describe_point(trial.params)}")
            if self._capacity is None:
                renewer.tell([a.heartbeat() for a in self._runs.values()])  # this may take longer than a lease
                program = self._crew.program(ProgramKey.of(experiment, hyperparameters))
                self._capacity, why = choose_lanes(program, experiment, hyperparameters)
                self._say(f"{self._capacity} lane{'s'[: self._capacity > 1]}: {why}")
        self._crew.admit(admitted)

    def _claim(self, admitted: list[ProgramKey]) -> Lease | None:
        seconds = self._study.spec.lease_seconds
        compiled = [shape_of(key.d_model, key.n_heads) for key in [*self._crew.keys, *admitted]]
        lease = leases.claim(self._database, self._study.study_id, self.name, seconds, compiled)
        if lease is None and self._sampled is not None:
            lease = self._sampled.claim(self.name, seconds)
        return lease

    def _listen(self) -> list[Update]:
        """What the crew has posted, or nothing after a moment. Raises what made a trainer fail."""
        posted: list[Posted] = []
        try:
            posted.append(self._crew.posted.get(timeout=LISTEN_SECONDS))
            while True:
                posted.append(self._crew.posted.get_nowait())
        except queue.Empty:
            pass
        updates = []
        for one in posted:
            if isinstance(one, BaseException):
                raise one
            updates.append(one)
        return updates

    def _sync(self, updates: list[Update], lost: set[Lease]) -> None:
        """Reports, prunes and ends trials; drops those whose lease was lost."""
        reports: dict[Lease, dict[int, float]] = {}
        for update in updates:
            if (assignment := self._runs.get(update.run)) is not None:
                reports.setdefault(assignment.lease, {}).update(assignment.take(update))
                self._keep_weights(assignment, update.look)
        reports = {lease: values for lease, values in reports.items() if values}
        training = {n: a for n, a in self._runs.items() if a.written is None}
        if reports or any(a.end or a.lease in lost for a in training.values()):
            heartbeats = [a.heartbeat() for a in training.values()]
            held = report(self._database, heartbeats, reports, self._study.spec.lease_seconds)
            for number in [n for n, a in training.items() if a.lease not in held]:
                self._lose(number)
            self._prune(reports)
        for number, assignment in list(self._runs.items()):
            if assignment.end is not None and assignment.written is None:
                self._crew.drop(number)
                assignment.written = self._writer.submit(self._write, assignment)
            elif assignment.written is not None and assignment.written.done():
                del self._runs[number]
                if (note := assignment.written.result()) is not None:
                    self._say(note)

    def _keep_weights(self, assignment: Assignment, look: Look | None) -> None:
        if self._snapshots is not None and look is not None:
            folder = self._snapshots / f"trial-{assignment.lease.number}"
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / f"epoch-{look.epoch}.npz", allow_pickle=False, **look.weights)

    def _lose(self, number: int) -> None:
        self._crew.drop(number)
        self._say(f"Trial {self._runs.pop(number).lease.number} was taken from this worker")

    def _prune(self, reports: dict[Lease, dict[int, float]]) -> None:
        """Asks the rule about every lane that has passed a rung at or above the floor."""
        floor = self._study.spec.pruning_floor
        asked = {
            a.lease.trial_id: (number, a, [epoch for epoch in reports.get(a.lease, {}) if epoch >= floor])
            for number, a in self._runs.items()
            if a.end is None and a.pruned is None
        }
        if self._study.spec.pruning.rule == "none" or not any(epochs for _, _, epochs in asked.values()):
            return
        trials: list[FrozenTrial] = self._optuna_study.get_trials(deepcopy=False)
        for trial in trials:
            number, assignment, epochs = asked.get(trial._trial_id, (0, None, []))
            for epoch in epochs:
                if assignment is not None and assignment.pruned is None:
                    assignment.pruned = self._rule.decide(trial, trials, epoch)
            if assignment is not None and assignment.pruned is not None:
                self._crew.stop(number)

    def _write(self, assignment: Assignment) -> str | None:
        """Everything about a trial that has ended; None if it was lost in the meantime."""
        assert assignment.end is not None
        ended = outcome(
            assignment.lease.number,
            assignment.experiment,
            assignment.progress,
            Record.concatenate(assignment.records),
            assignment.spectra,
            assignment.end,
            assignment.pruned,
            {"seconds": round(time.monotonic() - assignment.started, 3), **self._attributes},
        )
        written = finish(self._database, self._study.study_id, assignment.heartbeat(), ended)
        return ended.note if written else None
