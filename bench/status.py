"""Question: how fast are our commands on a large study, compared with reading all trials through Optuna?

    python bench/status.py --trials 10000 --json status.json

Both sides of a row answer the same question about the same study, in turn in one process. Optuna's side calls
`Study.get_trials` with an uncached reader, as a new process has it, and picks what is shown.

The output has the median seconds of both sides and their ratio, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.presets import TABLE_1
from miiii_search.config.study_sections import Budget, Replicates
from miiii_search.config.study_spec import StudySpec, rungs
from miiii_search.experiment.spec import Experiment
from miiii_search.storage import schema
from miiii_search.storage.database import Database, open_database
from miiii_search.study.best_trials import best_trial, read_best, sort_best_first
from miiii_search.study.create import create_study
from miiii_search.study.finished_trials import finished_trials
from miiii_search.study.overview import list_studies
from miiii_search.study.replicates import rank_configurations
from miiii_search.study.status import LAST_PRUNED, StatusReader, read_status
from miiii_search.study.study import Study
from miiii_search.testing.postgres import PostgresServer
from miiii_search.trial_queue import leases

EPOCHS = 65536
WAITING, RUNNING = 64, 32
"""Numbers of waiting and running trials; the others have ended."""

BATCH_SIZE = 1000
"""Trials written per statement."""


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--trials", type=int, default=10_000, help="size of the study (default %(default)s)")
    options.add_argument("--repeats", type=int, default=3, help="measurements of each read (default %(default)s)")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = options.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: list[dict[str, Any]] = []
    print(f"{'':<12}{'what':<28}{'ours, s':>9}{'Optuna, s':>11}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as server:
        for kind, url in (("sqlite", f"sqlite:///{folder}/bench.db"), ("postgresql", server.create_database())):
            database = open_database(url, create=True)
            study = make_study(database, arguments.trials)
            for what, ours, plain in comparisons(study):
                row = measure(ours, plain, arguments.repeats)
                rows.append({"database": kind, "what": what, **row})
                print(f"{kind:<12}{what:<28}{row['ours']:>9.3f}{row['optuna']:>11.2f}{row['ratio']:>8.0f}", flush=True)
            database.close()
    if arguments.json:
        arguments.json.write_text(json.dumps({"trials": arguments.trials, "rows": rows}, indent=2) + "\n")


def comparisons(study: Study) -> list[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """Return (name, our read, Optuna's read) of each question."""
    reader = StatusReader(study)
    reader.read()

    def plain_status() -> Any:
        trials = read_all(study)
        pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
        return (
            best_trial(trials),
            sort_best_first(trials)[:5],
            pruned[-3:],
            rank_configurations(finished_trials(trials), study.spec.replicates.count),
        )

    return [
        ("status", lambda: read_status(study, LAST_PRUNED), plain_status),
        ("status, read again", reader.read, plain_status),
        ("best", lambda: read_best(study), lambda: best_trial(read_all(study))),
        ("list", lambda: list_studies(study.database), lambda: best_trial(read_all(study))),
        ("a poll of the coordinator", study.is_done, lambda: read_all(study)),
    ]


def read_all(study: Study) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study.name, storage=study.database.optuna).get_trials(deepcopy=False)


def measure(ours: Callable[[], Any], plain: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Run both sides in turn, and return the median seconds and their ratio."""
    taken: dict[str, list[float]] = {"ours": [], "optuna": []}
    for _ in range(repeats):
        for name, action in (("ours", ours), ("optuna", plain)):
            began = time.perf_counter()
            action()
            taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {**medians, "ratio": medians["optuna"] / medians["ours"]}


def make_study(database: Database, n: int) -> Study:
    """Create a study of `n` trials of Table 1 by SQL, with the reports and attributes that a worker would write."""
    spec = StudySpec(
        experiment=Experiment(epochs=EPOCHS),
        space=TABLE_1,
        replicates=Replicates(count=-(-n // 384)),
        budget=Budget(trials=n),
    )
    study = create_study(database, "large", spec)
    n_ended = max(n - WAITING - RUNNING, 0)
    chance = random.Random(0)
    with database.transaction() as connection:
        query = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study.study_id)
        ids = list(connection.execute(query.order_by(schema.trials.c.number)).scalars())[:n_ended]
        for k in range(0, len(ids), BATCH_SIZE):
            end(connection, ids[k : k + BATCH_SIZE], chance, rungs(spec.experiment))
    study.queue.claim("worker", 600.0, n=RUNNING)
    if database.url.drivername != "sqlite":
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sa.text("ANALYZE"))
    return study


def end(connection: sa.Connection, ids: list[int], chance: random.Random, epochs: list[int]) -> None:
    """End trials: half of them are pruned half-way, the others are complete, and some of those solved."""
    now = leases.utc_now()
    values, attributes, reports = [], [], []
    for trial_id in ids:
        is_pruned, accuracy = chance.random() < 0.5, chance.random()
        trained = EPOCHS // 2 if is_pruned else EPOCHS
        solved = None if is_pruned or accuracy < 0.8 else int(EPOCHS * chance.random())
        metrics = {name: [accuracy] * 29 for name in ("train_accuracy", "validation_accuracy", "test_accuracy")}
        known = {
            "epochs_trained": trained,
            "epochs_to_solve": solved,
            "seconds": 100.0,
            "worker": "a-machine:1234",
            "device": "cpu",
            "metrics": {**metrics, "validation_accuracy_mean": accuracy},
            "versions": {"jax": "0.10.2", "optuna": "5.0.0"},
            **({"reason": "its validation loss would be down too late"} if is_pruned else {}),
        }
        values.append({"trial_id": trial_id, "objective": 0, "value": accuracy, "value_type": "FINITE"})
        attributes += [{"trial_id": trial_id, "key": k, "value_json": json.dumps(v)} for k, v in known.items()]
        reports += [
            {"trial_id": trial_id, "step": e, "intermediate_value": accuracy, "intermediate_value_type": "FINITE"}
            for e in epochs
            if e <= trained
        ]
        state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
        connection.execute(
            sa.update(schema.trials)
            .where(schema.trials.c.trial_id == trial_id)
            .values(state=state, datetime_start=now, datetime_complete=now)
        )
    for table, rows in (
        (schema.trial_values, values),
        (schema.trial_user_attributes, attributes),
        (schema.intermediate_values, reports),
    ):
        connection.execute(sa.insert(table), rows)


if __name__ == "__main__":
    main()
