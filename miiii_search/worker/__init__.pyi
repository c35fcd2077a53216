from .checkpoints import ByteBudget, LocalCheckpoints, share_checkpoint, shared_epochs
from .options import CheckpointPolicy, WorkerOptions
from .provenance import source_commit
from .worker import Worker

__all__ = [
    "ByteBudget",
    "CheckpointPolicy",
    "LocalCheckpoints",
    "Worker",
    "WorkerOptions",
    "share_checkpoint",
    "shared_epochs",
    "source_commit",
]
