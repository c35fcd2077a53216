"""The simulator, compared with the service. Database, leases, worker and pruning are real; training is replayed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from miiii_search.config.search_space import PointKey, point_key
from miiii_search.config.study_sections import Pruning
from miiii_search.config.study_spec import StudySpec, rungs
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.simulation.curves import Curve, make_curve
from miiii_search.simulation.orders import GridEIOrder
from miiii_search.simulation.pruner_variants import PrunerVariant
from miiii_search.simulation.replay import QUEUE_ORDER, replay
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.trial_attrs import REPLICATE_KEY
from miiii_search.study.create import create_study
from miiii_search.testing.trainer_pool import FakeTrainerPool
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.lane_stores import PendingRecords
from miiii_search.training.trainer_messages import FinalState, RunRequest, RunUpdate, TrainerEvent
from miiii_search.worker.worker import Worker
from tests.simulation.support import epochs_of, make_record

pytestmark = pytest.mark.slow

SHORT = Experiment(p=7, task="nanda", train_fraction=0.5, epochs=256, evaluate_every=2, validation_samples=12)
SPEC = StudySpec(
    experiment=SHORT,
    hyperparameters=Hyperparameters(d_model=16, n_heads=2),
    space={"dropout": (0.0, 0.1), "weight_decay": (0.0, 1.0), "learning_rate": (1e-4, 1e-3, 1e-2)},
)
LANES = 3


@dataclass
class Lane:
    """A run that is being replayed."""

    run: RunRequest
    curve: Curve
    started: float
    stops: list[int]
    told: int = 0
    """The epoch up to which its evaluations were posted."""


class Replaying(PendingRecords):
    """Evaluations of a curve after one epoch, up to another."""

    def __init__(self, curve: Curve, after: int, until: int) -> None:
        self._record = curve.record.rows((curve.record.epoch > after) & (curve.record.epoch <= until))

    def record(self, lane: int) -> Record:
        return self._record


class Posts(queue.Queue[TrainerEvent]):
    """The events of the pool; time passes only when the worker asks for more and nothing is left to be told."""

    def __init__(self, trainers: CurvePool) -> None:
        super().__init__()
        self._trainers = trainers

    def get(self, block: bool = True, timeout: float | None = None) -> TrainerEvent:
        if block and self.empty():
            self._trainers.advance()
        return super().get(block, 0.05 if block else None)


class CurvePool(FakeTrainerPool[Lane]):
    """A trainer pool whose lanes replay curves, an epoch a tick, and stop where something happens."""

    def __init__(self, curves: dict[PointKey, Curve]) -> None:
        super().__init__()
        self._curves = curves
        self._clock = 0.0
        self.began: dict[int, float] = {}
        """Start time of each trial by the pool's clock, in the order of the starts."""
        self.events = Posts(self)
        self.worker: Worker | None = None

    def start_run(self, run: RunRequest) -> None:
        curve = self._curves[point_key({name: getattr(run.hyperparameters, name) for name in SPEC.space})]
        stops = [epoch for epoch in rungs(run.experiment) if epoch < curve.last_epoch] + [curve.last_epoch]
        self._lanes[run.number] = Lane(run, curve, self._clock, stops)
        self.began[curve.number] = self._clock

    def stop(self, number: int) -> None:
        self._post(number, self._lanes[number].told, over=True)

    def advance(self) -> None:
        """To the next moment at which something happens, once all that ended is written."""
        assert self.worker is not None
        results = [trial.result for trial in self.worker._manager.trials.values()]
        if not all(result.done() for result in results if result is not None):
            time.sleep(0.01)
            return
        ahead = {number: lane for number, lane in self._lanes.items() if lane.stops}
        if not ahead:
            return
        self._clock = min(lane.started + lane.stops[0] for lane in ahead.values())
        for number, lane in ahead.items():
            if lane.started + lane.stops[0] == self._clock:
                epoch = lane.stops.pop(0)
                self._post(number, epoch, over=epoch == lane.curve.last_epoch)

    def _post(self, number: int, epoch: int, over: bool) -> None:
        lane = self._lanes[number]
        curve, rows = lane.curve, Replaying(lane.curve, lane.told, epoch)
        lane.told = epoch
        ends = epoch == curve.last_epoch
        progress = RunProgress(
            epoch,
            curve.solved_epoch if ends else None,
            epoch if ends and curve.failed else None,
            ended=ends,
        )
        tasks = len(curve.experiment.task_moduli)
        names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        end = FinalState({name: np.zeros(tasks, np.float32) for name in names}, {"w": np.zeros(4, np.float32)})
        if over:
            lane.stops = []
        self.events.put(RunUpdate(number, progress, 1.0, end if over else None, None, rows, 0))


def make_curves() -> list[Curve]:
    """In the queue's order: some grok early or late, some never turn, one fails, some memorise slowly."""
    chance, epoch, curves = np.random.default_rng(3), epochs_of(SHORT), list[Curve]()
    for number, (point, replicate) in enumerate(SPEC.queue()):
        kind, at = number % 4, float(chance.uniform(60, 240))
        accuracy = np.clip(chance.integers(0, 5, len(epoch)) / 12 + (0.0 if kind else 1.0) * (epoch >= at), 0, 1)
        loss = np.maximum(3 * (1 - epoch / at), 0.001) if kind in (0, 1) else 1 + np.log(epoch)
        train = np.minimum(epoch / (150 if kind == 2 else 10), 1.0)
        record = make_record(accuracy, loss, train, 30.0, SHORT)
        fails = 60 if number == 5 else None
        if fails:
            record = record.rows(record.epoch <= fails)
        curves.append(
            make_curve(number, point, replicate, SPEC.run_at(point, replicate)[0], record, failed_epoch=fails)
        )
    return curves


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/test.db", create=True)
    yield opened
    opened.close()


@pytest.mark.parametrize("sampler", ["grid_ei", "grid"])
@pytest.mark.parametrize(
    "pruning",
    [
        Pruning(rule="forecast"),
        Pruning(rule="forecast", safety=1.0, min_epochs=16),
        Pruning(rule="quantile", quantile=0.4, min_epochs=16),
        Pruning(rule="median", min_epochs=16, options={"n_startup_trials": 2}),
        Pruning(rule="successive_halving", min_epochs=16, options={"reduction_factor": 2}),
    ],
    ids=lambda pruning: f"{pruning.rule} {pruning.min_epochs or ''}".strip(),
)
def test_the_same_decisions(database: Database, pruning: Pruning, sampler: str) -> None:
    """The same trials start at the same times, and the same are pruned at the same epochs for the same reasons."""
    curves = make_curves()
    spec = SPEC.model_copy(update={"pruning": pruning, "sampler": sampler, "max_retries": 0})
    study = create_study(database, "replayed", spec)
    trainers = CurvePool({point_key(curve.point): curve for curve in curves})
    trainers.worker = Worker(study, LANES, trainers=trainers)
    trainers.worker.run(threading.Event())
    contender = PrunerVariant(pruning.rule, pruning=pruning)
    order = GridEIOrder(curves) if sampler == "grid_ei" else QUEUE_ORDER
    expected = replay(curves, contender.simulated_study(spec, curves), LANES, contender.floor(spec), order)
    assert [trainers.began[run.curve.number] for run in expected] == [run.started for run in expected]
    assert (list(trainers.began) == sorted(trainers.began)) == (sampler == "grid")
    states = {"solved": "COMPLETE", "unsolved": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    found = [
        (t.number, t.state.name, t.user_attrs["epochs_trained"], t.user_attrs["reason"] if pruned(t.state) else None)
        for t in study.trials()
    ]
    assert found == [(run.curve.number, states[run.outcome], run.epochs, run.reason) for run in expected]
    for trial, run in zip(study.trials(), expected, strict=True):
        assert trial.system_attrs[REPLICATE_KEY] == 0
        if run.objective is not None:
            assert trial.value == pytest.approx(run.objective, abs=1e-12)
    assert 0 < sum(run.outcome == "pruned" for run in expected) < len(expected)


def pruned(state: TrialState) -> bool:
    return state == TrialState.PRUNED
