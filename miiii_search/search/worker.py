"""The worker: fills lanes from the queue, trains, reports, prunes, ends trials. Here search meets experiment."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import numpy as np
from optuna.trial import FrozenTrial, TrialState

from miiii_search.analysis.curves import learning_curves
from miiii_search.experiment.device import describe_device, package_versions
from miiii_search.experiment.lanes import Lanes, Progress
from miiii_search.experiment.metrics import Metrics, mean_accuracy, summarize
from miiii_search.experiment.pace import Pace
from miiii_search.experiment.program import ProgramKey
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.telemetry import Record
from miiii_search.search import leases
from miiii_search.search.artifacts import Artifact
from miiii_search.search.leases import Heartbeat, Lease
from miiii_search.search.provenance import source_commit
from miiii_search.search.pruning import make_rule
from miiii_search.search.renewal import Renewer
from miiii_search.search.reporting import Outcome, finish, report
from miiii_search.search.sampling import SampledQueue
from miiii_search.search.spec import rungs
from miiii_search.search.study import METRICS_KEY, Study, describe_point, objective, shape_of

IDLE_SECONDS = 1.0
"""Between two looks at an empty queue, while others still train what may come back to it."""


@dataclass
class Assignment:
    """A trial in a lane."""

    lease: Lease
    experiment: Experiment
    hyperparameters: Hyperparameters
    lanes: Lanes
    lane: int
    started: float
    rungs: list[int]
    """Still ahead."""
    records: list[Record] = field(default_factory=list)
    epochs_per_second: float = 0.0
    pruned: str | None = None
    """Why the trial is given up."""

    @property
    def progress(self) -> Progress:
        """Where the trial stands."""
        return self.lanes.progress(self.lane)

    def heartbeat(self) -> Heartbeat:
        """What the lease is renewed with."""
        return Heartbeat(self.lease, self.progress.epoch, self.epochs_per_second)

    def take_reports(self, record: Record) -> dict[int, float]:
        """The accuracy at each rung that this part of the record reached."""
        reached = {}
        for epoch, accuracy in zip(record.epoch, record.validation_accuracy, strict=True):
            if self.rungs and epoch >= self.rungs[0]:
                self.rungs.pop(0)
                reached[int(epoch)] = mean_accuracy(self.experiment, accuracy)
        if self.progress.ended and len(record) and int(record.epoch[-1]) not in reached:
            reached[int(record.epoch[-1])] = mean_accuracy(self.experiment, record.validation_accuracy[-1])
        return reached


def default_lanes() -> int:
    """A lane a core on a CPU, where lanes only overlap; 32 where they are batched."""
    return os.cpu_count() or 1 if jax.default_backend() == "cpu" else 32


class Worker:
    """Trains trials of one study until none is left, or until told to stop."""

    def __init__(self, study: Study, lanes: int, say: Callable[[str], None] = lambda line: None) -> None:
        self._study = study
        self._database = study.database
        self._capacity = lanes
        self._say = say
        self._optuna_study = study.load()
        self._rule = make_rule(study.spec, self._optuna_study)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        seed = int.from_bytes(os.urandom(4), "little")
        self._sampled = SampledQueue(study, seed) if study.spec.sampler != "queue" else None
        self._lanes: dict[ProgramKey, Lanes] = {}
        self._pace: dict[ProgramKey, Pace] = {}
        self._assignments: list[Assignment] = []
        self._pending: dict[Lease, dict[int, float]] = {}
        self._provenance = {
            "worker": self.name,
            "device": describe_device(),
            "versions": package_versions(),
            "git_commit": source_commit(),
        }

    def run(self, stop: threading.Event) -> None:
        """Works until the study has no trial left to give, or `stop` is set; then hands its trials back."""
        try:
            with Renewer(self._database, self._study.spec.lease_seconds) as renewer:
                while not stop.is_set():
                    self._fill()
                    renewer.tell([a.heartbeat() for a in self._assignments])
                    if self._assignments:
                        self._train()
                        self._sync(renewer.lost)
                    elif self._study.is_done():
                        return
                    else:
                        stop.wait(IDLE_SECONDS)
        finally:
            if self._assignments:
                numbers = leases.hand_back(self._database, [a.lease for a in self._assignments])
                self._say(f"handed back {len(numbers)} trials: {', '.join(map(str, numbers))}")

    def _fill(self) -> None:
        """Claims trials until all lanes are taken or the queue is empty."""
        while len(self._assignments) < self._capacity:
            lease = self._claim()
            if lease is None:
                return
            trial = self._database.optuna.get_trial(lease.trial_id)
            experiment, hyperparameters = self._study.run_of(trial)
            key = ProgramKey.of(experiment, hyperparameters)
            if key not in self._lanes:
                self._lanes[key], self._pace[key] = Lanes(key), Pace()
            lanes = self._lanes[key]
            lane = lanes.admit(experiment, hyperparameters)
            self._assignments.append(
                Assignment(lease, experiment, hyperparameters, lanes, lane, time.monotonic(), rungs(experiment))
            )
            self._say(f"Trial {lease.number} starts: {describe_point(trial.params)}")

    def _claim(self) -> Lease | None:
        seconds = self._study.spec.lease_seconds
        compiled = [shape_of(key.d_model, key.n_heads) for key in self._lanes]
        lease = leases.claim(self._database, self._study.study_id, self.name, seconds, compiled)
        if lease is None and self._sampled is not None:
            lease = self._sampled.claim(self.name, seconds)
        return lease

    def _train(self) -> None:
        """A chunk for every lane."""
        for key, lanes in self._lanes.items():
            if not len(lanes):
                continue
            pace = self._pace[key]
            with pace.measure():
                records = lanes.train(pace.evaluations)
            for assignment in self._assignments:
                if assignment.lanes is lanes:
                    record = records[assignment.lane]
                    assignment.records.append(record)
                    assignment.epochs_per_second = len(record) * key.experiment.evaluation_interval / pace.seconds
                    self._pending.setdefault(assignment.lease, {}).update(assignment.take_reports(record))

    def _sync(self, lost: set[Lease]) -> None:
        """Reports, renews, prunes and ends trials; drops lanes whose lease was lost."""
        reports = {lease: values for lease, values in self._pending.items() if values}
        if not reports and not any(a.progress.ended or a.lease in lost for a in self._assignments):
            return
        heartbeats = [a.heartbeat() for a in self._assignments]
        held = report(self._database, heartbeats, reports, self._study.spec.lease_seconds)
        self._pending = {}
        for assignment in [a for a in self._assignments if a.lease not in held]:
            self._say(f"Trial {assignment.lease.number} was taken from this worker")
            self._drop(assignment)
        self._prune(reports)
        for assignment in [a for a in self._assignments if a.progress.ended or a.pruned]:
            outcome = self._outcome(assignment)
            if finish(self._database, self._study.study_id, assignment.heartbeat(), outcome):
                self._say(outcome.note)
            self._drop(assignment)

    def _prune(self, reports: dict[Lease, dict[int, float]]) -> None:
        """Asks the rule about every lane that has passed a rung at or above the floor."""
        floor = self._study.spec.pruning_floor
        asked = {
            a.lease.trial_id: (a, [epoch for epoch in reports.get(a.lease, {}) if epoch >= floor])
            for a in self._assignments
            if not a.progress.ended
        }
        if self._study.spec.pruning.rule == "none" or not any(epochs for _, epochs in asked.values()):
            return
        trials: list[FrozenTrial] = self._optuna_study.get_trials(deepcopy=False)
        for trial in trials:
            assignment, epochs = asked.get(trial._trial_id, (None, []))
            for epoch in epochs:
                if assignment is not None and assignment.pruned is None:
                    assignment.pruned = self._rule.decide(trial, trials, epoch)

    def _outcome(self, assignment: Assignment) -> Outcome:
        experiment, progress, number = assignment.experiment, assignment.progress, assignment.lease.number
        record = Record.concatenate(assignment.records)
        attributes: dict[str, object] = {
            "epochs_trained": progress.epoch,
            "epochs_to_solve": progress.solved_epoch,
            "seconds": round(time.monotonic() - assignment.started, 3),
            "seed": experiment.seed,
            **self._provenance,
        }
        if progress.failed_epoch is not None:
            state, value = TrialState.FAIL, None
            note = f"Trial {number} failed: the loss was not finite at epoch {progress.failed_epoch:,}."
            attributes |= {"failed_epoch": progress.failed_epoch, "reason": note}
        else:
            weights, final = assignment.lanes.weights(assignment.lane), assignment.lanes.final(assignment.lane)
            metrics = summarize(experiment, record, progress.solved_epoch, final, weights)
            state, value, ending = _judge(experiment, metrics, assignment.pruned)
            note = f"Trial {number} {ending}"
            moduli = [str(q) for q in metrics.moduli]
            attributes |= {
                "validation_accuracy": dict(zip(moduli, metrics.validation_accuracy, strict=True)),
                "test_accuracy": dict(zip(moduli, metrics.test_accuracy, strict=True)),
                METRICS_KEY: metrics.model_dump(mode="json", exclude_none=True),
            }
            if assignment.pruned is not None:
                attributes["reason"] = assignment.pruned
        artifacts = [
            Artifact("learning-curves.png", learning_curves(experiment, record, note, progress.solved_epoch)),
            Artifact("record.npz", record.to_npz(moduli=np.asarray(experiment.moduli))),
        ]
        return Outcome(state, value, note, attributes, artifacts)

    def _drop(self, assignment: Assignment) -> None:
        assignment.lanes.release(assignment.lane)
        self._assignments.remove(assignment)


def _judge(experiment: Experiment, metrics: Metrics, pruned: str | None) -> tuple[TrialState, float, str]:
    """State, objective and the end of a sentence about a trial that ended with a finite loss."""
    accuracy, solved = metrics.validation_accuracy_mean, metrics.epochs_to_solve
    if solved is not None:
        test = float(np.mean(np.asarray(metrics.test_accuracy)[np.asarray(experiment.scored)]))
        ending = f"solved every task at epoch {solved:,} of {experiment.epochs:,} (test accuracy {test:.3f})."
        return TrialState.COMPLETE, objective(experiment, accuracy, solved), ending
    if pruned is not None:
        return TrialState.PRUNED, accuracy, f"was pruned: {pruned}."
    reached = sum(
        a >= experiment.target_accuracy
        for a, scored in zip(metrics.validation_accuracy, experiment.scored, strict=True)
        if scored
    )
    ending = (
        f"was not solved in {experiment.epochs:,} epochs: validation accuracy {accuracy:.3f}, "
        f"{reached} of {sum(experiment.scored)} tasks at {experiment.target_accuracy:g}."
    )
    return TrialState.COMPLETE, objective(experiment, accuracy, None), ending
