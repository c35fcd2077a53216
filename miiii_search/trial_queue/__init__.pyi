from ._device_time import ReservedTime
from .abandoned import describe_abandoned
from .budget import BudgetReservation, exhausted_limit, read_exhausted_limit
from .leases import Heartbeat, Lease, claim, find_finished, grant, renew, utc_now
from .requeue import requeue_leases, requeue_overdue
from .results import FinishStatus, TrialResult, finish, report, requeue_for_retry
from .trial_queue import TrialQueue, find_studies_with_overdue

__all__ = [
    "BudgetReservation",
    "FinishStatus",
    "Heartbeat",
    "Lease",
    "ReservedTime",
    "TrialQueue",
    "TrialResult",
    "claim",
    "describe_abandoned",
    "exhausted_limit",
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
