"""The studies that `bench/storage.py` measures on, written by SQL: one of ours, and its copy for plain Optuna."""

from __future__ import annotations

import random
from collections.abc import Sequence

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.presets import TABLE_1
from miiii_search.config.study_sections import Budget, Replicates
from miiii_search.config.study_spec import StudySpec, rungs
from miiii_search.experiment.spec import Experiment
from miiii_search.storage import schema
from miiii_search.storage.database import Database
from miiii_search.storage.trial_attrs import REPLICATE_KEY, SHAPE_KEY
from miiii_search.study.create import create_study
from miiii_search.study.study import Study
from miiii_search.trial_queue import leases

EPOCHS = 2048
"""Epochs per trial. A trial of the paper's 65,536 epochs trains 32 times as long with only 10 more rungs."""


def make_study(database: Database, size: int, width: int) -> Study:
    """Create a study of Table 1: `size` trials, of which all but the last `width` have ended, and `width` more."""
    spec = StudySpec(
        experiment=Experiment(epochs=EPOCHS),
        space=TABLE_1,
        replicates=Replicates(count=-(-(size + width) // 384)),
        budget=Budget(trials=size + width),
    )
    study = create_study(database, "ours", spec)
    with database.transaction() as connection:
        ids = list(connection.execute(sa.select(schema.trials.c.trial_id).order_by("number")).scalars())
        insert_reports(connection, ids[: size - width], rungs(spec.experiment))
        complete_trials(connection, ids[: size - width])
    return study


def insert_reports(connection: sa.Connection, trial_ids: Sequence[int], epochs: Sequence[int]) -> None:
    """Insert reports of these trials at these rungs."""
    generator = random.Random(0)
    rows = [
        {"trial_id": i, "step": e, "intermediate_value": generator.random(), "intermediate_value_type": "FINITE"}
        for i in trial_ids
        for e in epochs
    ]
    if rows:
        connection.execute(sa.insert(schema.intermediate_values), rows)


def complete_trials(connection: sa.Connection, trial_ids: Sequence[int]) -> None:
    """Set the trials to COMPLETE, with a value."""
    now = leases.utc_now()
    done = {"state": TrialState.COMPLETE, "datetime_start": now, "datetime_complete": now}
    if trial_ids:
        connection.execute(sa.update(schema.trials).where(schema.trials.c.trial_id.in_(trial_ids)).values(done))
        generator = random.Random(0)
        rows = [{"trial_id": i, "objective": 0, "value": generator.random(), "value_type": "FINITE"} for i in trial_ids]
        connection.execute(sa.insert(schema.trial_values), rows)


def requeue_ended(database: Database, study_id: int, trial_ids: Sequence[int]) -> None:
    """Return trials that have ended to the queue, and delete all that was written about them."""
    tables, notes = schema.TRIAL_TABLES, schema.study_system_attributes
    with database.transaction() as connection:
        for table in set(tables) - {schema.trial_params, schema.trial_system_attributes}:
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(trial_ids)))
        of_trials = schema.trial_system_attributes.c
        connection.execute(
            sa.delete(schema.trial_system_attributes).where(
                of_trials.trial_id.in_(trial_ids), of_trials.key.not_in([SHAPE_KEY, REPLICATE_KEY])
            )
        )
        for trial_id in trial_ids:
            of_trial = notes.c.key.startswith(f"dashboard:{trial_id}:")
            connection.execute(sa.delete(notes).where(notes.c.study_id == study_id, of_trial))
        connection.execute(sa.delete(schema.artifacts))
        anew = {"state": TrialState.WAITING, "datetime_start": None, "datetime_complete": None}
        connection.execute(sa.update(schema.trials).where(schema.trials.c.trial_id.in_(trial_ids)).values(anew))


def delete_trials(database: Database, trial_ids: Sequence[int]) -> None:
    """Delete trials with all that was written about them."""
    with database.transaction() as connection:
        for table in (*schema.TRIAL_TABLES, schema.trial_heartbeats, schema.trials):
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(trial_ids)))


def open_copy(database: Database) -> optuna.Study:
    """Open the study that `copy_study` made, with a cache of its own."""
    return optuna.load_study(
        storage=database.optuna,
        study_name="plain",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.PercentilePruner(25.0, n_startup_trials=4, n_warmup_steps=EPOCHS // 4),
    )


def copy_study(database: Database, study: Study, width: int) -> None:
    """Copy the trials to a study of plain Optuna, without the `width` trials that are to run."""
    twin = optuna.create_study(storage=database.optuna, study_name="plain", direction="maximize")
    with database.transaction() as connection:
        ended = f"study_id = {study.study_id} AND number < (SELECT count(*) FROM trials) - {2 * width}"
        connection.execute(
            sa.text(
                "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) "
                f"SELECT number, {twin._study_id}, state, datetime_start, datetime_complete FROM trials WHERE {ended}"
            )
        )
        pair = (
            f"FROM trials a JOIN trials b ON a.number = b.number AND a.study_id = {study.study_id} "
            f"AND b.study_id = {twin._study_id}"
        )
        for table, columns in {
            "trial_params": "param_name, param_value, distribution_json",
            "trial_values": "objective, value, value_type",
            "trial_intermediate_values": "step, intermediate_value, intermediate_value_type",
        }.items():
            connection.execute(
                sa.text(
                    f"INSERT INTO {table} (trial_id, {columns}) SELECT b.trial_id, {columns} {pair} "
                    f"JOIN {table} c ON c.trial_id = a.trial_id"
                )
            )
        connection.execute(sa.text("ANALYZE"))
