"""Studies for the tests: specs small enough to train in seconds, and trials that end without any training."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hypothesis
import numpy as np
import optuna
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from miiii_search.config.overrides import to_tree, validate
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.pruners.base import PruningContext
from miiii_search.pruners.history import History
from miiii_search.storage import schema
from miiii_search.storage import study_attrs as attributes
from miiii_search.storage.artifacts import Artifact, store_artifact
from miiii_search.storage.database import Database
from miiii_search.study.study import Study
from miiii_search.trial_queue.budget import BudgetReservation
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult

SECONDS = 60.0
"""A lease that lasts longer than any test."""

OVERDUE = -1.0
"""A lease that is overdue as soon as it is granted."""

TINY = Experiment(p=7, task="nanda", train_fraction=0.5, epochs=48, evaluate_every=4, validation_samples=12)
SMALL = Hyperparameters(d_model=16, n_heads=2, learning_rate=3e-3, weight_decay=0.5, grokfast_lambda=0.0, dropout=0.0)

SPACE: dict[str, Any] = {
    "dropout": (0.0, 0.1),
    "weight_decay": (0.0, 0.5, 1.0),
    "n_heads": (2, 4),
    "learning_rate": (1e-3, 3e-3),
}
"""24 configurations of two shapes."""


PER_TASK = ("train_accuracy", "train_loss", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
"""The fields of `Metrics` with a value a task."""


def make_spec(**fields: Any) -> StudySpec:
    """A study of 24 tiny runs; `fields` replace its own."""
    spec = StudySpec(**{"experiment": TINY, "hyperparameters": SMALL, "space": SPACE, **fields})
    return validate(StudySpec, to_tree(spec), "the spec")  # as it comes from a file


def empty_history() -> History:
    """Those of a run that has shown nothing."""
    nothing = np.empty((0, 0))
    return History(np.empty(0, np.int64), nothing, nothing, nothing, np.empty(0))


def pruning_context(trial: Any, trials: Sequence[Any], epoch: int) -> PruningContext:
    """A trial at a rung, of a run that has shown nothing but its reports."""
    return PruningContext(TINY, epoch, empty_history(), trial, trials)


def read_back(study: Study) -> optuna.Study:
    """The study as any program with Optuna sees it, with a cache that has seen nothing yet."""
    return optuna.load_study(study_name=study.name, storage=study.database.optuna)


def all_tables() -> list[sa.Table]:
    """Optuna's tables and ours, each after those that it refers to; without the version of the schema."""
    optunas = [t for t in models.BaseModel.metadata.sorted_tables if t.name != "version_info"]
    return [*optunas, *schema.METADATA.sorted_tables]


def everything(database: Database) -> dict[str, list[str]]:
    """All rows of all tables, without the names of deleted studies, which outlive them."""
    kept = [table for table in all_tables() if table is not schema.deleted_studies]
    with database.engine.connect() as connection:
        return {t.name: sorted(map(repr, connection.execute(sa.select(t)).all())) for t in kept}


def claim(study: Study, seconds: float = SECONDS, shapes: Sequence[str] = (), worker: str = "worker") -> Lease:
    """Claims a trial that must be there."""
    [lease] = study.queue.claim(worker, seconds, preferred_shapes=shapes)
    return lease


def metrics_of(study: Study, accuracy: float = 0.5, solved: int | None = None) -> dict[str, Any]:
    """Metrics as a worker records them, with the same accuracy for every task."""
    moduli = study.spec.experiment.task_moduli
    per_task = [accuracy] * len(moduli)
    metrics: dict[str, Any] = {
        "epochs_trained": solved or study.spec.experiment.epochs,
        "validation_accuracy_mean": accuracy,
        "moduli": list(moduli),
        "weights_sha256": "0" * 64,
        **dict.fromkeys(PER_TASK, per_task),
    }
    return metrics | ({"epochs_to_solve": solved} if solved else {})


def end(
    study: Study, lease: Lease, state: TrialState = TrialState.COMPLETE, value: float | None = 0.5, **attributes: Any
) -> None:
    """Ends a claimed trial as a worker would, without having trained it."""
    known = {"device": "cpu", "worker": "worker", "seconds": 1.5, "metrics": metrics_of(study, value or 0.0)}
    outcome = TrialResult(state, value, "ended.", known | attributes, [])
    assert study.queue.finish(Heartbeat(lease, 1, 1.0), outcome) == FinishStatus.WRITTEN


def with_all(study: Study) -> list[Lease]:
    """Give a study trials of every kind, and return the lease of the running one.

    Three trials have ended, with artifacts, one of them attached later. One runs, with reports, a lease and a damaged
    checkpoint.
    """
    for k, state in enumerate((TrialState.COMPLETE, TrialState.PRUNED)):
        lease, value = claim(study), (0.25, 1e-300)[k]
        beat = Heartbeat(lease, 8, 1.0)
        study.queue.report([beat], {lease: {4: 1 / 3, 8: float("nan") if k else 0.5}}, SECONDS)
        artifact = Artifact("curves.png", bytes([k]) * 1000)
        known = {"metrics": metrics_of(study), "epochs_to_solve": None, "text": "ä\n\u2028"}
        outcome = TrialResult(state, value, f"note {k} " * 400, known, [artifact])
        assert study.queue.finish(beat, outcome) == FinishStatus.WRITTEN
    lease = claim(study)
    outcome = TrialResult(TrialState.FAIL, None, "failed.", {"reason": "nan"}, [])
    assert study.queue.finish(Heartbeat(lease, 8, 1.0), outcome) == FinishStatus.WRITTEN
    running = claim(study)
    beat = Heartbeat(running, 16, 1.0)
    study.queue.report([beat], {running: {4: 0.1}}, SECONDS)
    assert study.queue.share_checkpoint(beat, 16, bytes(range(256)) * 8, SECONDS)
    with study.database.transaction() as connection:
        later, meta = store_artifact(connection, Artifact("late.csv", b"a,b" * 500))
        key = f"dashboard:artifacts:{lease.trial_id}:{later.removeprefix('artifacts:')}"
        attributes.write(connection, study.study_id, {key: meta})
    BudgetReservation(study.queue, study.spec.budget, 1).update()
    return [running]


def together(*actions: Callable[[], Any]) -> list[Any]:
    """Runs the actions in threads that begin at once; returns what each returned, or raises what one raised."""
    barrier = threading.Barrier(len(actions))
    results: list[Any] = [None] * len(actions)
    errors: list[BaseException] = []

    def run(index: int, action: Callable[[], Any]) -> None:
        try:
            barrier.wait(600)
            results[index] = action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=item) for item in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


class _Lines(logging.Handler):
    def __init__(self, thread: threading.Thread | None) -> None:
        super().__init__()
        self.thread = thread
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.thread is None or record.thread == self.thread.ident:
            self.lines.append(record.getMessage())


@contextlib.contextmanager
def log_lines(thread: threading.Thread | None = None) -> Iterator[list[str]]:
    """Collects what the package logs, from the level INFO on: all of it, or that of one thread."""
    logger, handler = logging.getLogger("miiii_search"), _Lines(thread)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def examples(number: int) -> hypothesis.settings:
    """Return settings with this many examples by default, and with a fifth of them by `pytest --fast`."""
    return hypothesis.settings(max_examples=max(number * hypothesis.settings().max_examples // 100, 1))


def wait_until(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Polls until the condition gives something true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not so within {seconds:g} s"
        time.sleep(0.05)  # a tight loop would keep the writers of a SQLite file out
    return found
