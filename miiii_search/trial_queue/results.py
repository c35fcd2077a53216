"""The result of a trial, and the outcome of writing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from optuna.trial import TrialState

from miiii_search.storage.artifacts import Artifact


@dataclass(frozen=True)
class TrialResult:
    """The final result of a trial.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        value: The objective. For a pruned trial, its last report, as in Optuna's `Study.tell`. None if there is none.
        note: One sentence on how the trial ended, which the dashboard shows on the trial's page.
        attributes: User attributes of the trial, by name.
        artifacts: Files that are stored in the database.
        is_solved: Whether the run was solved.
        links: Trial attributes that link artifacts which are stored elsewhere already; see `artifacts.artifact_link`.
    """

    state: TrialState
    value: float | None
    note: str
    attributes: Mapping[str, Any]
    artifacts: Sequence[Artifact]
    is_solved: bool = False
    links: Mapping[str, str] = field(default_factory=dict)


class FinishStatus(Enum):
    """The outcome of `finish`."""

    WRITTEN = "written"
    """The trial has ended with this lease."""
    LEASE_LOST = "lease lost"
    """The lease was lost. Nothing was written."""
    OVER_BUDGET = "over budget"
    """The study has as many solved trials as its budget allows. The trial is in the queue again."""
