"""Active trials that nothing has trained: their records and ends are made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from miiii_search.experiment.record import Record
from miiii_search.study.study import Study
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.trainer_messages import FinalState, RunSaved, RunUpdate
from miiii_search.trial_queue.leases import Lease
from miiii_search.worker.active_trial import ActiveTrial, RungReports
from tests.simulation.support import make_record
from tests.support import SMALL, TINY, claim

WEIGHTS = {"query": np.arange(6.0).reshape(2, 3)}
STATE = {"epoch": np.asarray(8), "weights.query": WEIGHTS["query"]}
TASKS = len(TINY.task_moduli)


def record_until(epoch: int, accuracy: float = 0.5) -> Record:
    """Evaluations every fourth epoch, all alike."""
    n = epoch // TINY.evaluation_interval
    return make_record([accuracy] * n, [1.0] * n, experiment=TINY)


def update(
    epoch: int, record: Record, *, solved: int | None = None, failed: int | None = None, ends: bool = False
) -> RunUpdate:
    """The progress of run 1, as a trainer posts it."""
    metrics = {
        f"{split}_{name}": np.full(TASKS, 0.5, np.float32)
        for split in ("train", "test")
        for name in ("accuracy", "loss")
    }
    final = FinalState({} if failed else metrics, {} if failed else dict(WEIGHTS))
    pending = SimpleNamespace(record=lambda lane: record)
    progress = RunProgress(epoch, solved, failed, ends)
    return RunUpdate(1, progress, 2.0, final if ends else None, None, cast(Any, pending), 0)


def active(study: Study, lease: Lease | None = None, **fields: Any) -> ActiveTrial:
    """A trial that was claimed, with rungs at the epochs 4, 8 and 16."""
    return ActiveTrial(lease or claim(study), TINY, SMALL, RungReports([4, 8, 16]), **fields)


def ended(study: Study, **known: Any) -> ActiveTrial:
    """A trial whose training has ended after twelve epochs."""
    trial = active(study)
    trial.apply_update(update(12, record_until(12), ends=True, **known))
    return trial


def saved(epoch: int) -> RunSaved:
    """The state of run 1."""
    return RunSaved(1, epoch, dict(STATE))
