"""The studies of a storage at a glance: what SQL can count, however many trials there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import schema
from miiii_search.storage.database import Database
from miiii_search.storage.deleted_studies import read_deletions
from miiii_search.storage.study_attrs import CREATED_KEY, PAUSED_KEY, PROGRAMS_KEY, SELECTED_KEY, SPEC_KEY
from miiii_search.study.state import expected_trials, find_missing_process, has_all_trials
from miiii_search.study.stored_spec import parse_spec
from miiii_search.training.version import TRAINING_PROGRAM
from miiii_search.trial_queue.abandoned import find_abandoned
from miiii_search.trial_queue.budget import exhausted_limit, read_usage
from miiii_search.trial_queue.counts import count_trials_by_study

ORDER = ("waiting", "running", "complete", "pruned", "fail")


@dataclass(frozen=True)
class StudyOverview:
    """A study in one line."""

    name: str
    state: str
    """running, waiting for a worker, a coordinator or another version, paused or done; or of another program."""
    counts: dict[str, int]
    n_trials: int
    """That it is to have."""
    best: float | None
    created: datetime | None
    """In UTC."""

    def to_json(self) -> dict[str, Any]:
        """What `list --json` prints of it."""
        created = self.created and self.created.isoformat(timespec="seconds")
        return {
            "study": self.name,
            "state": self.state,
            "counts": self.counts,
            "n_trials": self.n_trials,
            "best": self.best,
            "created": created,
        }


def list_studies(database: Database) -> list[StudyOverview]:
    """All studies, by name; in as many statements for many trials as for few."""
    with database.engine.connect() as connection:
        studies = connection.execute(sa.select(schema.studies).order_by("study_name")).all()
        attributes, counts = _attributes(connection), count_trials_by_study(connection)
        best, started, served = _best(connection), _first_starts(connection), _served(connection)
        abandoned = {trial.study_id for trial in find_abandoned(connection)}
        listed = []
        for row in studies:
            known, of_study = attributes.get(row.study_id, {}), counts.get(row.study_id, {})
            found = {name: of_study.get(TrialState[name.upper()], 0) for name in ORDER}
            created = started.get(row.study_id)
            if CREATED_KEY in known:
                created = datetime.fromtimestamp(known[CREATED_KEY], UTC)
            total = sum(found.values())
            state, n_trials = "of another program", total
            if SPEC_KEY in known:
                state, n_trials = _state(
                    connection, row.study_id, known, found, row.study_id in served, row.study_id in abandoned
                )
            listed.append(StudyOverview(row.study_name, state, found, n_trials, best.get(row.study_id), created))
    return listed


def list_deleted(database: Database) -> dict[str, datetime]:
    """When each deleted study was deleted, by name; without those that were created again."""
    with database.engine.connect() as connection:
        return read_deletions(connection)


def _state(
    connection: sa.Connection,
    study_id: int,
    known: Mapping[str, Any],
    counts: Mapping[str, int],
    is_served: bool,
    is_abandoned: bool,
) -> tuple[str, int]:
    """The state in words, and how many trials there are to be."""
    total = sum(counts.values())
    try:
        spec = parse_spec(known[SPEC_KEY])
    except MiiiiSearchError:
        return "of another version", total
    selection = known.get(SELECTED_KEY)
    ended = not counts["waiting"] and has_all_trials(spec, selection, total)
    over = spec.budget.has_limits and exhausted_limit(spec.budget, read_usage(connection, study_id)) is not None
    if not counts["running"] and (ended or over):
        state = "done"
    elif PAUSED_KEY in known:
        state = "paused"
    else:
        is_selecting = spec.replicates.top is not None and selection is None
        missing = (
            None if is_served else find_missing_process(counts, is_selecting=is_selecting, is_abandoned=is_abandoned)
        )
        state = f"waiting for {missing}" if missing else "running"
        if missing and TRAINING_PROGRAM not in known.get(PROGRAMS_KEY, (1,)):
            state = "waiting for another version"
    return state, expected_trials(spec, selection, total)


def _attributes(connection: sa.Connection) -> dict[int, dict[str, Any]]:
    table = schema.study_system_attributes
    query = sa.select(table.c.study_id, table.c.key, table.c.value_json).where(
        table.c.key.in_([SPEC_KEY, PAUSED_KEY, CREATED_KEY, SELECTED_KEY, PROGRAMS_KEY])
    )
    found: dict[int, dict[str, Any]] = {}
    for row in connection.execute(query):
        found.setdefault(row.study_id, {})[row.key] = json.loads(row.value_json)
    return found


def _best(connection: sa.Connection) -> dict[int, float]:
    """The highest objective of COMPLETE trials of the studies that maximise one."""
    trials, values = schema.trials, schema.trial_values
    of_one = schema.study_directions.c.direction == "MAXIMIZE"
    single = sa.select(schema.study_directions.c.study_id).group_by("study_id").having(sa.func.count() == 1)
    query = (
        sa.select(trials.c.study_id, sa.func.max(values.c.value).label("best"))
        .join(values, values.c.trial_id == trials.c.trial_id)
        .join(schema.study_directions, (schema.study_directions.c.study_id == trials.c.study_id) & of_one)
        .where(trials.c.state == TrialState.COMPLETE, trials.c.study_id.in_(single))
        .group_by(trials.c.study_id)
    )
    return {row.study_id: row.best for row in connection.execute(query) if row.best is not None}


def _first_starts(connection: sa.Connection) -> dict[int, datetime]:
    """When the first trial was started: of studies that do not say when they were created."""
    trials = schema.trials
    query = sa.select(trials.c.study_id, sa.func.min(trials.c.datetime_start).label("at")).group_by(trials.c.study_id)
    return {row.study_id: row.at.replace(tzinfo=UTC) for row in connection.execute(query) if row.at is not None}


def _served(connection: sa.Connection) -> set[int]:
    """The studies of which some worker trains trials."""
    leases = schema.leases
    query = sa.select(leases.c.study_id).where(leases.c.expires_at > schema.now(connection)).distinct()
    return set(connection.execute(query).scalars())
