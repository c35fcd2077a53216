"""The note on a study's page in the dashboard: its state, the best trial, how to export it, and the search space."""

from __future__ import annotations

import json
import shlex
import time
from datetime import UTC, datetime

from optuna.trial import FrozenTrial, TrialState

from miiii_search.experiment.metrics import format_accuracy
from miiii_search.experiment.text import format_params
from miiii_search.storage import notes
from miiii_search.storage.artifacts import LEARNING_CURVES
from miiii_search.storage.hints import PROGRAM
from miiii_search.study.best_trials import read_best
from miiii_search.study.state import StudyState, expected_trials, missing_process, study_state
from miiii_search.study.study import Study
from miiii_search.study.trials import counts_by_name
from miiii_search.trial_queue.budget import read_exhausted_limit

REFRESH_SECONDS = 60.0
"""Seconds between two updates of a note. Each reads the database with three statements."""


class StudyNote:
    """Keeps a study's note current, unless a user has edited it. For use by one thread.

    Several coordinators may keep the same note: each writes what the others would.

    Args:
        study: The study.
        seconds: Seconds between two updates.
    """

    def __init__(self, study: Study, seconds: float = REFRESH_SECONDS) -> None:
        self._study = study
        self._seconds = seconds
        self._due = 0.0
        self._body: str | None = None

    def refresh(self, done: bool) -> None:
        """Write the note if an update is due and its text has changed.

        Args:
            done: Whether the study is done. The note is always updated then.
        """
        if not done and time.monotonic() < self._due:
            return
        body = render_note(self._study, done)
        if body != self._body:
            when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            self._study.store.write_note(f"{body}\nLast changed {when}.\n")
            self._body = body
        self._due = time.monotonic() + self._seconds


def render_note(study: Study, done: bool) -> str:
    """Return the note as Markdown, without the time of its last change."""
    counts = study.counts()
    counted = ", ".join(f"{n} {name}" for name, n in counts_by_name(counts).items())
    expected = expected_trials(study.spec, study.selection, sum(counts.values()))
    return (
        f"## {_state(study, counts, done)}\n\n{counted}, of {expected} trials.\n\n"
        f"## Best so far\n\n{_best(study, read_best(study))}\n\n"
        f"## What is searched\n\n{notes.describe(study.spec)}"
    )


def _state(study: Study, counts: dict[TrialState, int], done: bool) -> str:
    """Return the state of the study, and the reason for it if there is one."""
    missing = None
    if not counts[TrialState.RUNNING]:
        # A coordinator writes this note, so none is missing.
        missing = missing_process(counts, is_selecting=False, is_abandoned=False)
    mismatch = study.version_mismatch
    state = study_state(done=done, paused=study.paused, missing=missing, is_admitted=mismatch is None)
    title = state.capitalize()
    if state == StudyState.DONE and counts[TrialState.WAITING]:
        limit = read_exhausted_limit(study.queue, study.spec.budget)
        return f"{title}: {limit}" if limit else title
    return f"{title}\n\n{mismatch}" if state == StudyState.WAITING_FOR_VERSION else title


def _best(study: Study, best: FrozenTrial | None) -> str:
    if best is None:
        return "No trial has been completed yet."
    solved = best.user_attrs.get("epochs_to_solve")
    reached = f"reached a validation accuracy of {format_accuracy(best.value or 0.0)}"
    how = f"solved every task at epoch {solved:,}" if solved else reached
    page = f"/dashboard/studies/{study.study_id}/trials?numbers={best.number}"
    command = f"{PROGRAM} best --study {shlex.quote(study.name)} --out best.toml"
    return (
        f"[Trial {best.number}]({page}) {how} ({format_params(best.params)}). "
        f"Where `MIIII_STORAGE` names this database, this exports it:\n\n```\n{command}\n```{_curves(study, best)}"
    )


def _curves(study: Study, trial: FrozenTrial) -> str:
    """Return the trial's learning curves as a Markdown image, or nothing if it has none."""
    artifacts = [json.loads(meta) for key, meta in trial.system_attrs.items() if key.startswith("artifacts:")]
    pictures = [artifact["artifact_id"] for artifact in artifacts if artifact["filename"] == LEARNING_CURVES]
    path = f"/artifacts/{study.study_id}/{trial._trial_id}"
    return "".join(f"\n\n![Its learning curves]({path}/{picture})" for picture in pictures)
