"""The queue of trials: which worker trains which trial, what it writes about it, and the budget that workers share.

`leases` claims trials and renews their leases. `requeue` returns trials to the queue, and `abandoned` finds those whose
workers are gone. `results` writes reports and final results. `budget` limits what a study uses, and `counts` counts
trials. All of them work on an open database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miiii_search.trial_queue.abandoned import AbandonedTrial, find_abandoned
    from miiii_search.trial_queue.budget import BudgetReservation, Usage, read_usage
    from miiii_search.trial_queue.counts import count_solved, count_trials, count_trials_by_study
    from miiii_search.trial_queue.leases import Heartbeat, Lease, claim, renew
    from miiii_search.trial_queue.requeue import requeue_leases, requeue_overdue
    from miiii_search.trial_queue.results import FinishStatus, TrialResult, finish, report, requeue_for_retry

__all__ = [
    "AbandonedTrial",
    "BudgetReservation",
    "FinishStatus",
    "Heartbeat",
    "Lease",
    "TrialResult",
    "Usage",
    "claim",
    "count_solved",
    "count_trials",
    "count_trials_by_study",
    "find_abandoned",
    "finish",
    "read_usage",
    "renew",
    "report",
    "requeue_for_retry",
    "requeue_leases",
    "requeue_overdue",
]

_MODULES = {
    "abandoned": ("AbandonedTrial", "find_abandoned"),
    "budget": ("BudgetReservation", "Usage", "read_usage"),
    "counts": ("count_solved", "count_trials", "count_trials_by_study"),
    "leases": ("Heartbeat", "Lease", "claim", "renew"),
    "requeue": ("requeue_leases", "requeue_overdue"),
    "results": ("FinishStatus", "TrialResult", "finish", "report", "requeue_for_retry"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
