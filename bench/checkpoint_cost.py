"""Measures what the checkpoints of a worker cost, for `bench/storage.py`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from storage_studies import EPOCHS, make_study

from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.database import open_database
from miiii_search.testing.postgres import PostgresServer
from miiii_search.training.checkpoint import Checkpoint
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.worker.checkpoints import (
    FILES_PER_TRIAL,
    ByteBudget,
    LocalCheckpoints,
)
from miiii_search.worker.options import CheckpointPolicy

LEASE_SECONDS = 60.0


def measure_checkpoints(d_model: int, lanes: int) -> dict[str, float]:
    """Return the MB per trial-hour that a worker writes, shares and keeps, and the duration of a checkpoint in ms.

    The checkpoint comes from a real run. An hour of the real policy and byte budget passes on a simulated clock.
    """
    experiment, hyperparameters = Experiment(epochs=EPOCHS), Hyperparameters(d_model=d_model)
    runs = Lanes(ProgramKey.of(experiment, hyperparameters), batched=False)
    lane = runs.admit(experiment, hyperparameters)
    record = runs.train(1)[lane]
    # As long as the record at the end of a trial.
    whole = Record.concatenate([record] * (EPOCHS // experiment.evaluation_interval))
    snapshot, epoch = runs.state(lane), runs.progress(lane).epoch
    data = Checkpoint(experiment, hyperparameters, epoch, snapshot, whole, {}, {}).to_bytes()
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        database = open_database(server.create_database(), create=True)
        study = make_study(database, 1, 1)
        [lease] = study.queue.claim("worker", LEASE_SECONDS)
        local = LocalCheckpoints(Path(folder), study)
        began = time.perf_counter()
        for n in range(1, 4):
            local.save(lease.trial_id, n, data)
        disk = (time.perf_counter() - began) / 3
        began = time.perf_counter()
        for n in range(1, 4):
            assert study.queue.share_checkpoint(Heartbeat(lease, n, 1.0), n, data, LEASE_SECONDS)
        shared_in = (time.perf_counter() - began) / 3
        database.close()
    now = 0.0
    policy = CheckpointPolicy(Path())
    budget = ByteBudget(policy.share_bytes_per_second, lambda: now)
    shared_at, written, shared = [0.0] * lanes, 0, 0
    while now < 3600:
        now += policy.save_seconds
        for k in range(lanes):
            written += len(data)
            if now - shared_at[k] >= policy.share_seconds and budget.try_consume(len(data)):
                shared, shared_at[k] = shared + len(data), now
    return {
        "d_model": d_model,
        "lanes": lanes,
        "megabytes": len(data) / 1e6,
        "written": written / lanes / 1e6,
        "shared": shared / lanes / 1e6,
        "stored": (FILES_PER_TRIAL + 1) * len(data) / 1e6,
        "disk_ms": 1e3 * disk,
        "database_ms": 1e3 * shared_in,
    }
