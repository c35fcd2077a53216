"""The message about trials whose workers are gone, to the word."""

from __future__ import annotations

import pytest

from miiii_search.storage.abandoned import AbandonedTrial
from miiii_search.trial_queue.abandoned import describe_abandoned

ONE = "and no coordinator has returned it to the queue"
MANY = "and no coordinator has returned them to the queue"


def trials(*workers: str | None) -> list[AbandonedTrial]:
    """Trials 3, 4, ... of these workers, silent for 60, 61.5, ... seconds."""
    return [AbandonedTrial(1, 3 + k, worker, 60 + 1.5 * k) for k, worker in enumerate(workers)]


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ([None], f"trial 3 is overdue (no worker has it), {ONE}"),
        ([None, None], f"trials 3, 4 are overdue (no worker has it), {MANY}"),
        (["a"], f"trial 3 is overdue (worker a has been silent for 60 s), {ONE}"),
        (["a", "a", None], f"trials 3, 4, 5 are overdue (worker a has been silent for 63 s), {MANY}"),
        (["b", "a", "b"], f"trials 3, 4, 5 are overdue (workers a, b have been silent for up to 63 s), {MANY}"),
        (
            list("fedcb"),
            f"trials 3, 4, 5, 6, 7 are overdue (workers b, c, d, e, f have been silent for up to 66 s), {MANY}",
        ),
        (
            list("fedcba"),
            f"trials 3, 4, 5, 6, 7 and others are overdue (workers a, b, c, d, e have been silent for up to 68 s), "
            f"{MANY}",
        ),
    ],
)
def test_abandoned_trials_are_described(workers: list[str | None], message: str) -> None:
    assert describe_abandoned(trials(*workers)) == message
