from .checkpoints import ByteBudget, LocalCheckpoints
from .life_events import Event, PrunerDecided, ReportsWritten, ResultWritten, Trained, TrainingEnded
from .options import CheckpointPolicy, WorkerOptions
from .provenance import source_commit
from .trial_life import Action, Duty, TrialLife, transition
from .worker import Worker

__all__ = [
    "Action",
    "ByteBudget",
    "CheckpointPolicy",
    "Duty",
    "Event",
    "LocalCheckpoints",
    "PrunerDecided",
    "ReportsWritten",
    "ResultWritten",
    "Trained",
    "TrainingEnded",
    "TrialLife",
    "Worker",
    "WorkerOptions",
    "source_commit",
    "transition",
]
