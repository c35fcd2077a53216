"""The rows of a study in memory, as an archive stores them; see `storage.archive_rows`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import TrialState

from miiii_search.storage import archive_rows, schema
from miiii_search.storage.archive_rows import Row
from miiii_search.testing.memory_database import MemoryContents, MemoryDeviceTime, MemoryTrial


def read_rows(contents: MemoryContents, study_id: int, now: float) -> dict[str, Any]:
    """Return what `archive_rows.read_rows` returns."""
    study, trials = contents.studies.get(study_id), contents.trials_of(study_id)
    of_study: tuple[list[dict[str, Any]], ...] = ([], [], [])
    if study is not None:
        directions = [{"direction": "MAXIMIZE", "objective": 0}]
        of_study = (directions, _attributes(study.user_attributes), _attributes(study.system_attributes))
    rows = [_rows_of(trial) for trial in trials]
    return {
        "exported_at": now,
        "study": {
            **dict(zip(archive_rows.STUDY_TABLES, of_study, strict=True)),
            archive_rows.DEVICE_TIME: [
                {"seconds": row.seconds} for row in contents.device_time.values() if row.study_id == study_id
            ],
        },
        "trials": [
            {
                "trial_id": trial.trial_id,
                "number": trial.number,
                "state": (TrialState.WAITING if trial.state == TrialState.RUNNING else trial.state).name,
                "datetime_start": archive_rows.to_json(trial.started_at),
                "datetime_complete": archive_rows.to_json(trial.completed_at),
            }
            for trial in trials
        ],
        "of_trials": {
            table: [
                {"trial_id": trial.trial_id, **row} for trial, of in zip(trials, rows, strict=True) for row in of[k]
            ]
            for k, table in enumerate(archive_rows.TRIAL_TABLES)
        },
    }


def insert_trials(contents: MemoryContents, study_id: int, rows: Sequence[Row]) -> dict[int, int]:
    """Do what `archive_rows.insert_trials` does."""
    if sorted(int(row["number"]) for row in rows) != list(range(len(rows))):
        raise archive_rows.ArchiveError("its trials are not numbered consecutively from 0")
    new_ids = {}
    for row in sorted(rows, key=lambda row: int(row["number"])):
        values = archive_rows.content_of(schema.trials, row)
        trial = contents.add_trial(study_id, values["state"])
        trial.started_at, trial.completed_at = values["datetime_start"], values["datetime_complete"]
        new_ids[int(row["trial_id"])] = trial.trial_id
    return new_ids


def insert_rows(
    contents: MemoryContents, study_id: int, table: str, rows: Sequence[Row], trial_ids: Mapping[int, int]
) -> None:
    """Do what `archive_rows.insert_rows` does."""
    study = contents.studies[study_id]
    for row in rows:
        values = archive_rows.content_of(archive_rows.table_named(table), row)
        if table == archive_rows.DEVICE_TIME:
            contents.device_time[uuid.uuid4().hex] = MemoryDeviceTime(study_id, values["seconds"])
        elif table == archive_rows.STUDY_ATTRIBUTES:
            study.system_attributes[values["key"]] = json.loads(values["value_json"])
        elif table == schema.study_user_attributes.name:
            study.user_attributes[values["key"]] = json.loads(values["value_json"])
        elif table in archive_rows.TRIAL_TABLES:
            _set(contents.trials[trial_ids[row["trial_id"]]], table, values)


def _attributes(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in known.items()]


def _rows_of(trial: MemoryTrial) -> list[list[dict[str, Any]]]:
    """Return the rows of one trial in each of `archive_rows.TRIAL_TABLES`."""
    params = [
        {
            "param_name": name,
            "param_value": distribution.to_internal_repr(trial.params[name]),
            "distribution_json": distribution_to_json(distribution),
        }
        for name, distribution in trial.distributions.items()
    ]
    values = []
    if trial.value is not None:
        stored, kind = schema.to_stored_value(trial.value)
        values = [{"objective": 0, "value": stored, "value_type": kind.name}]
    reports = []
    for step, report in trial.reports.items():
        number, report_kind = schema.to_stored_report(report)
        reports.append({"step": step, "intermediate_value": number, "intermediate_value_type": report_kind.name})
    return [params, values, _attributes(trial.user_attributes), _attributes(trial.system_attributes), reports]


def _set(trial: MemoryTrial, table: str, values: Mapping[str, Any]) -> None:
    if table == schema.trial_params.name:
        name, distribution = values["param_name"], json_to_distribution(values["distribution_json"])
        trial.distributions[name] = distribution
        trial.params[name] = distribution.to_external_repr(values["param_value"])
    elif table == schema.trial_values.name:
        trial.value = schema.from_stored_value(values["value"], values["value_type"])
    elif table == schema.trial_user_attributes.name:
        trial.user_attributes[values["key"]] = json.loads(values["value_json"])
    elif table == schema.trial_system_attributes.name:
        trial.system_attributes[values["key"]] = json.loads(values["value_json"])
    else:
        kind = values["intermediate_value_type"]
        trial.reports[values["step"]] = schema.from_stored_report(values["intermediate_value"], kind)
