"""One training run as data: its settings, its tasks, its final metrics and the record of its training.

Nothing in here needs JAX or a database.
"""

from miiii_search.experiment.metrics import Metrics, compare_metrics, summarize
from miiii_search.experiment.record import Record, WeightSnapshot, find_snapshots, write_snapshot
from miiii_search.experiment.spec import Annealing, Experiment, Hyperparameters, LinearDecay, Spec
from miiii_search.experiment.tasks import Split, Splits, digits, labels, make_splits

__all__ = [
    "Annealing",
    "Experiment",
    "Hyperparameters",
    "LinearDecay",
    "Metrics",
    "Record",
    "Spec",
    "Split",
    "Splits",
    "WeightSnapshot",
    "compare_metrics",
    "digits",
    "find_snapshots",
    "labels",
    "make_splits",
    "summarize",
    "write_snapshot",
]
