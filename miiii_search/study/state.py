"""The state of a study, and the words for it that every command, log and page uses."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from optuna.trial import TrialState

from miiii_search.config.study_spec import StudySpec

A_WORKER, A_COORDINATOR = "a worker", "a coordinator"
"""Processes that a study can wait for."""


class StudyState(StrEnum):
    """State of a study. The value reads well after "the study is"; `list --json` prints it."""

    RUNNING = "running"
    WAITING_FOR_WORKER = f"waiting for {A_WORKER}"
    WAITING_FOR_COORDINATOR = f"waiting for {A_COORDINATOR}"
    WAITING_FOR_VERSION = "waiting for another version"
    """Workers of this version may not train the study; see `Study.version_mismatch`."""
    PAUSED = "paused"
    DONE = "done"
    OTHER_PROGRAM = "of another program"
    """The study has no specification: another program created it with Optuna."""
    OTHER_VERSION = "of another version"
    """This version cannot read the specification."""

    @property
    def is_waiting(self) -> bool:
        """Whether the study waits for a process."""
        return self in (self.WAITING_FOR_WORKER, self.WAITING_FOR_COORDINATOR, self.WAITING_FOR_VERSION)


def study_state(*, done: bool, paused: bool, missing: str | None, is_admitted: bool) -> StudyState:
    """Return the state of a study.

    Args:
        done: Whether the study is done; see `is_done`.
        paused: Whether the study is paused.
        missing: The process that the study waits for; see `missing_process`.
        is_admitted: Whether workers of this version may train the study.
    """
    if done:
        return StudyState.DONE
    if paused:
        return StudyState.PAUSED
    if missing is None:
        return StudyState.RUNNING
    if missing != A_WORKER:
        return StudyState.WAITING_FOR_COORDINATOR
    return StudyState.WAITING_FOR_WORKER if is_admitted else StudyState.WAITING_FOR_VERSION


def describe_pause(name: str, paused: bool) -> str:
    """Return the sentence that reports a pause, or its end."""
    return f"study `{name}` is {StudyState.PAUSED}" if paused else f"study `{name}` is no longer {StudyState.PAUSED}"


def describe_waiting(name: str, state: StudyState, command: str) -> str:
    """Return the sentence that reports which process a study waits for, with the command that starts one."""
    return f"study `{name}` is {state}; start one: {command}"


def is_done(
    spec: StudySpec, selection: Mapping[str, Any] | None, counts: Mapping[TrialState, int], *, is_budget_exhausted: bool
) -> bool:
    """Return whether a study is done.

    It is done once no trial is running, and either all of its trials have ended or its budget is exhausted.

    Args:
        spec: The study's specification.
        selection: The selection of the best configurations; see `Study.selection`.
        counts: Number of trials in each state.
        is_budget_exhausted: Whether a limit of the budget other than the number of trials is reached.
    """
    if counts[TrialState.RUNNING]:
        return False
    have_ended = not counts[TrialState.WAITING] and has_all_trials(spec, selection, sum(counts.values()))
    return have_ended or is_budget_exhausted


def has_all_trials(spec: StudySpec, selection: Mapping[str, Any] | None, n_trials: int) -> bool:
    """Return whether a study with this many trials gets no more."""
    if spec.replicates.top is None:
        return n_trials >= spec.n_trials
    # A caller that counted before the selection, and read it afterwards, counted too few.
    return selection is not None and n_trials >= selection["n_trials"]


def expected_trials(spec: StudySpec, selection: Mapping[str, Any] | None, n_trials: int) -> int:
    """Return how many trials a study has when it is done.

    This is an upper bound as long as the best configurations are not selected yet.

    Args:
        spec: The study's specification.
        selection: The selection of the best configurations; see `Study.selection`.
        n_trials: Number of trials that the study has now.
    """
    if spec.replicates.top is None:
        return spec.n_trials
    return max(spec.n_trials if selection is None else selection["n_trials"], n_trials)


def missing_process(counts: Mapping[TrialState, int], *, is_selecting: bool, is_abandoned: bool) -> str | None:
    """Return the process that a study waits for: `A_WORKER`, `A_COORDINATOR` or None.

    The study is neither done nor paused, and no worker holds one of its trials.

    Args:
        counts: Number of trials in each state.
        is_selecting: Whether a coordinator still has to select the best configurations.
        is_abandoned: Whether running trials are overdue, so that a coordinator has to return them to the queue.
    """
    if counts[TrialState.WAITING]:
        return A_WORKER
    if is_abandoned or (is_selecting and not counts[TrialState.RUNNING]):
        return A_COORDINATOR
    return None if counts[TrialState.RUNNING] else A_WORKER
