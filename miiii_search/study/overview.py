"""One line for each study of a database, from a fixed number of SQL statements for any number of trials."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.database import Database
from miiii_search.storage.records import StudyRow
from miiii_search.storage.study_attrs import CREATED_KEY, PAUSED_KEY, PROGRAMS_KEY, SELECTED_KEY, SPEC_KEY
from miiii_search.storage.study_catalog import CatalogReader
from miiii_search.study.state import StudyState, expected_trials, is_done, missing_process, study_state
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.study import training_programs
from miiii_search.study.trials import counts_by_name
from miiii_search.training.version import TRAINING_PROGRAM
from miiii_search.trial_queue.budget import exhausted_limit

ATTRIBUTES = (SPEC_KEY, PAUSED_KEY, CREATED_KEY, SELECTED_KEY, PROGRAMS_KEY)
"""Attributes from which an overview is made."""


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
    with database.studies.reading() as studies:
        rows = studies.read_rows(ATTRIBUTES)
        abandoned = {trial.study_id for trial in studies.find_abandoned()}
        return [_overview_of(row, studies, is_abandoned=row.study_id in abandoned) for row in rows]


def list_deleted(database: Database) -> dict[str, datetime]:
    """Return the time of deletion of each deleted study, by name. Studies that were created again are missing."""
    return database.studies.read_deletions()


def _overview_of(row: StudyRow, studies: CatalogReader, *, is_abandoned: bool) -> StudyOverview:
    created = row.first_start
    if CREATED_KEY in row.attributes:
        created = datetime.fromtimestamp(row.attributes[CREATED_KEY], UTC)
    state, n_trials = _read_state(row, studies, is_abandoned=is_abandoned)
    return StudyOverview(row.name, state, counts_by_name(row.counts), n_trials, row.best, created)


def _read_state(row: StudyRow, studies: CatalogReader, *, is_abandoned: bool) -> tuple[StudyState, int]:
    """Return the state of a study, and the number of trials that it has when it is done."""
    attributes, counts = row.attributes, row.counts
    n_trials = sum(counts.values())
    if SPEC_KEY not in attributes:
        return StudyState.OTHER_PROGRAM, n_trials
    try:
        spec = parse_spec(attributes[SPEC_KEY])
    except MiiiiSearchError:
        return StudyState.OTHER_VERSION, n_trials
    selection = attributes.get(SELECTED_KEY)
    limit = exhausted_limit(spec.budget, studies.read_usage(row.study_id)) if spec.budget.has_limits else None
    is_selecting = spec.replicates.top is not None and selection is None
    missing = None if row.is_trained else missing_process(counts, is_selecting=is_selecting, is_abandoned=is_abandoned)
    state = study_state(
        done=is_done(spec, selection, counts, is_budget_exhausted=limit is not None),
        paused=PAUSED_KEY in attributes,
        missing=missing,
        is_admitted=TRAINING_PROGRAM in training_programs(attributes),
    )
    return state, expected_trials(spec, selection, n_trials)
