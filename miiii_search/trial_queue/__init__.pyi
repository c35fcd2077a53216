from ._device_time import ReservedTime
from .abandoned import describe_abandoned
from .budget import BudgetReservation, exhausted_limit, read_exhausted_limit
from .leases import Heartbeat, Lease, utc_now
from .requeue import requeue_leases
from .results import FinishStatus, TrialResult, report
from .trial_queue import TrialQueue, find_studies_with_overdue

__all__ = [
    "BudgetReservation",
    "FinishStatus",
    "Heartbeat",
    "Lease",
    "ReservedTime",
    "TrialQueue",
    "TrialResult",
    "describe_abandoned",
    "exhausted_limit",
    "find_studies_with_overdue",
    "read_exhausted_limit",
    "report",
    "requeue_leases",
    "utc_now",
]
