"""Descriptions of trials whose workers are gone. `storage.abandoned` finds them."""

from __future__ import annotations

from collections.abc import Sequence

from miiii_search.storage.abandoned import AbandonedTrial

MAX_NAMED = 5
"""Maximum number of trials, and of workers, that a message names."""


def describe_abandoned(found: Sequence[AbandonedTrial]) -> str:
    """Return a clause that says which trials wait for a coordinator, and which workers held them."""
    numbers = ", ".join(str(trial.number) for trial in found[:MAX_NAMED]) + " and others" * (len(found) > MAX_NAMED)
    silent = max(trial.silent_seconds for trial in found)
    workers = sorted({trial.worker for trial in found if trial.worker is not None})
    named = ", ".join(workers[:MAX_NAMED])
    if not workers:
        reason = "no worker has it"
    elif len(workers) == 1:
        reason = f"worker {named} has been silent for {silent:.0f} s"
    else:
        reason = f"workers {named} have been silent for up to {silent:.0f} s"
    many = len(found) > 1
    return (
        f"trial{'s' * many} {numbers} {'are' if many else 'is'} overdue ({reason}), "
        f"and no coordinator has returned {'them' if many else 'it'} to the queue"
    )
