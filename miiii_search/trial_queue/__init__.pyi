from ._device_time import ReservedTime
from .abandoned import describe_abandoned
from .budget import BudgetReservation, exhausted_limit, read_exhausted_limit
from .leases import Heartbeat, Lease, utc_now
from .results import FinishStatus, TrialResult
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
    "utc_now",
]
