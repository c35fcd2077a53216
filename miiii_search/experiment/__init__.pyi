from .digits import digits
from .hyperparameters import USED_ONLY_WITH, is_used
from .metrics import Metrics, compare_metrics, format_accuracy, hash_weights, mean_accuracy, summarize
from .primes import primes_below
from .record import (
    Floats,
    Record,
    WeightSnapshot,
    find_snapshots,
    next_snapshot_epoch,
    spectra_from_npz,
    write_snapshot,
)
from .spec import Annealing, Experiment, Hyperparameters, LinearDecay, Spec
from .subsets import ALL, canonical_subset
from .switches import Switches
from .task import Task
from .task_registry import get_task, task_names
from .tasks import Split, Splits, class_shares, guessing_losses, labels, make_splits
from .text import format_params, format_value

__all__ = [
    "ALL",
    "USED_ONLY_WITH",
    "Annealing",
    "Experiment",
    "Floats",
    "Hyperparameters",
    "LinearDecay",
    "Metrics",
    "Record",
    "Spec",
    "Split",
    "Splits",
    "Switches",
    "Task",
    "WeightSnapshot",
    "canonical_subset",
    "class_shares",
    "compare_metrics",
    "digits",
    "find_snapshots",
    "format_accuracy",
    "format_params",
    "format_value",
    "get_task",
    "guessing_losses",
    "hash_weights",
    "is_used",
    "labels",
    "make_splits",
    "mean_accuracy",
    "next_snapshot_epoch",
    "primes_below",
    "spectra_from_npz",
    "summarize",
    "task_names",
    "write_snapshot",
]
