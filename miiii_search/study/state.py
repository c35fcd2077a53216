"""When a study is done, and who it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miiii_search.config.study_spec import StudySpec

A_WORKER, A_COORDINATOR = "a worker", "a coordinator"
"""Who a study can wait for."""


def has_all_trials(spec: StudySpec, selection: Mapping[str, Any] | None, n_trials: int) -> bool:
    """Whether a study with so many trials will get no more."""
    if spec.replicates.top is None:
        return n_trials >= spec.n_trials
    # Who counted before the selection, and reads of it after, counted too few.
    return selection is not None and n_trials >= selection["n_trials"]


def expected_trials(spec: StudySpec, selection: Mapping[str, Any] | None, n_trials: int) -> int:
    """How many trials a study that has so many will have in the end, or at most where the best are yet to be known."""
    if spec.replicates.top is None:
        return spec.n_trials
    return max(spec.n_trials if selection is None else selection["n_trials"], n_trials)


def find_missing_process(counts: Mapping[str, int], *, is_selecting: bool, is_abandoned: bool) -> str | None:
    """Returns who a study waits for that is not done, not paused, and that no worker trains."""
    if counts["waiting"]:
        return A_WORKER
    if is_abandoned or (is_selecting and not counts["running"]):
        return A_COORDINATOR  # who takes trials back, and gives the best their further seeds
    return None if counts["running"] else A_WORKER
