"""One line for each study of a database, from a fixed number of SQL statements for any number of trials."""

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
from miiii_search.storage.abandoned import find_abandoned
from miiii_search.storage.database import Database
from miiii_search.storage.deleted_studies import read_deletions
from miiii_search.storage.study_attrs import CREATED_KEY, PAUSED_KEY, PROGRAMS_KEY, SELECTED_KEY, SPEC_KEY
from miiii_search.storage.trial_counts import count_trials_by_study
from miiii_search.storage.usage import read_usage
from miiii_search.study.state import StudyState, expected_trials, is_done, missing_process, study_state
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.study import training_programs
from miiii_search.study.trials import STATES, counts_by_name
from miiii_search.training.version import TRAINING_PROGRAM
from miiii_search.trial_queue.budget import exhausted_limit


@dataclass(frozen=True)
class StudyOverview:
    """A study in one line."""

    name: str
    state: StudyState
    counts: dict[str, int]
    """Number of trials in each state, by the state's name."""
    n_trials: int
    """Number of trials that the study has when it is done."""
    best: float | None
    """Highest objective of its complete trials."""
    created: datetime | None
    """Time of creation in UTC."""

    def to_json(self) -> dict[str, Any]:
        """Return what `list --json` prints of the study."""
        created = self.created and self.created.isoformat(timespec="seconds")
        return {
            "study": self.name,
            "state": self.state.value,
            "counts": self.counts,
            "n_trials": self.n_trials,
            "best": self.best,
            "created": created,
        }


def list_studies(database: Database) -> list[StudyOverview]:
    """Return an overview of each study, sorted by name."""
    with database.engine.connect() as connection:
        studies = connection.execute(sa.select(schema.studies).order_by("study_name")).all()
        attributes, counts = _read_attributes(connection), count_trials_by_study(connection)
        best, started, trained = _read_best(connection), _read_first_starts(connection), _read_trained(connection)
        abandoned = {trial.study_id for trial in find_abandoned(connection)}
        overviews = []
        for row in studies:
            study_id = row.study_id
            known = attributes.get(study_id, {})
            n_by_state = counts.get(study_id, dict.fromkeys(STATES, 0))
            created = started.get(study_id)
            if CREATED_KEY in known:
                created = datetime.fromtimestamp(known[CREATED_KEY], UTC)
            state, n_trials = _read_state(
                connection,
                study_id,
                known,
                n_by_state,
                is_trained=study_id in trained,
                is_abandoned=study_id in abandoned,
            )
            overviews.append(
                StudyOverview(row.study_name, state, counts_by_name(n_by_state), n_trials, best.get(study_id), created)
            )
    return overviews


def list_deleted(database: Database) -> dict[str, datetime]:
    """Return the time of deletion of each deleted study, by name. Studies that were created again are missing."""
    with database.engine.connect() as connection:
        return read_deletions(connection)


def _read_state(
    connection: sa.Connection,
    study_id: int,
    attributes: Mapping[str, Any],
    counts: Mapping[TrialState, int],
    *,
    is_trained: bool,
    is_abandoned: bool,
) -> tuple[StudyState, int]:
    """Return the state of a study, and the number of trials that it has when it is done."""
    n_trials = sum(counts.values())
    if SPEC_KEY not in attributes:
        return StudyState.OTHER_PROGRAM, n_trials
    try:
        spec = parse_spec(attributes[SPEC_KEY])
    except MiiiiSearchError:
        return StudyState.OTHER_VERSION, n_trials
    selection = attributes.get(SELECTED_KEY)
    limit = exhausted_limit(spec.budget, read_usage(connection, study_id)) if spec.budget.has_limits else None
    is_selecting = spec.replicates.top is not None and selection is None
    missing = None if is_trained else missing_process(counts, is_selecting=is_selecting, is_abandoned=is_abandoned)
    state = study_state(
        done=is_done(spec, selection, counts, is_budget_exhausted=limit is not None),
        paused=PAUSED_KEY in attributes,
        missing=missing,
        is_admitted=TRAINING_PROGRAM in training_programs(attributes),
    )
    return state, expected_trials(spec, selection, n_trials)


def _read_attributes(connection: sa.Connection) -> dict[int, dict[str, Any]]:
    """Return the attributes from which an overview is made, by study."""
    table = schema.study_system_attributes
    query = sa.select(table.c.study_id, table.c.key, table.c.value_json).where(
        table.c.key.in_([SPEC_KEY, PAUSED_KEY, CREATED_KEY, SELECTED_KEY, PROGRAMS_KEY])
    )
    found: dict[int, dict[str, Any]] = {}
    for row in connection.execute(query):
        found.setdefault(row.study_id, {})[row.key] = json.loads(row.value_json)
    return found


def _read_best(connection: sa.Connection) -> dict[int, float]:
    """Return the highest objective of the complete trials of each study that maximizes a single objective."""
    trials, values, directions = schema.trials, schema.trial_values, schema.study_directions
    single = sa.select(directions.c.study_id).group_by("study_id").having(sa.func.count() == 1)
    query = (
        sa.select(trials.c.study_id, sa.func.max(values.c.value).label("best"))
        .join(values, values.c.trial_id == trials.c.trial_id)
        .join(directions, (directions.c.study_id == trials.c.study_id) & (directions.c.direction == "MAXIMIZE"))
        .where(trials.c.state == TrialState.COMPLETE, trials.c.study_id.in_(single))
        .group_by(trials.c.study_id)
    )
    return {row.study_id: row.best for row in connection.execute(query) if row.best is not None}


def _read_first_starts(connection: sa.Connection) -> dict[int, datetime]:
    """Return when the first trial of each study was started, for studies that do not store when they were created."""
    trials = schema.trials
    query = sa.select(trials.c.study_id, sa.func.min(trials.c.datetime_start).label("at")).group_by(trials.c.study_id)
    return {row.study_id: row.at.replace(tzinfo=UTC) for row in connection.execute(query) if row.at is not None}


def _read_trained(connection: sa.Connection) -> set[int]:
    """Return the ids of the studies with a valid lease."""
    leases = schema.leases
    query = sa.select(leases.c.study_id).where(leases.c.expires_at > schema.now(connection)).distinct()
    return set(connection.execute(query).scalars())
