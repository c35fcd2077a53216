from .abandoned import AbandonedTrial, describe_abandoned, find_abandoned, find_studies_with_overdue
from .budget import BudgetReservation, exhausted_limit, read_exhausted_limit
from .leases import Heartbeat, Lease, claim, find_finished, grant, renew, utc_now
from .requeue import requeue_leases, requeue_overdue
from .results import FinishStatus, TrialResult, finish, report, requeue_for_retry

__all__ = [
    "AbandonedTrial",
    "BudgetReservation",
    "FinishStatus",
    "Heartbeat",
    "Lease",
    "TrialResult",
    "claim",
    "describe_abandoned",
    "exhausted_limit",
    "find_abandoned",
    "find_finished",
    "find_studies_with_overdue",
    "finish",
    "grant",
    "read_exhausted_limit",
    "renew",
    "report",
    "requeue_for_retry",
    "requeue_leases",
    "requeue_overdue",
    "utc_now",
]
