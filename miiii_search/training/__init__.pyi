from .autotune import choose_lanes, device_memory
from .checkpoint import Checkpoint, CheckpointError
from .chunk_size import ChunkSizer
from .device import choose_device, describe_device, is_out_of_memory, package_versions, use_compilation_cache
from .jax_environment import import_jax, remove_unsafe_variables
from .lane_state import RunProgress
from .lane_stores import PendingRecords
from .lanes import Lanes
from .loss import task_slices, task_weights, weighted_loss
from .model import make_dropout
from .numerics import describe_numerics
from .optimizer import make_optimizer
from .program import Program, ProgramKey
from .run import TrainingResult
from .trainer_messages import (
    ChunkTiming,
    FinalState,
    RunRequest,
    RunSaved,
    RunsOutOfMemory,
    RunSuspended,
    RunUpdate,
    TrainerEvent,
)
from .trainer_pool import TrainerPool

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ChunkSizer",
    "ChunkTiming",
    "FinalState",
    "Lanes",
    "PendingRecords",
    "Program",
    "ProgramKey",
    "RunProgress",
    "RunRequest",
    "RunSaved",
    "RunSuspended",
    "RunUpdate",
    "RunsOutOfMemory",
    "TrainerEvent",
    "TrainerPool",
    "TrainingResult",
    "choose_device",
    "choose_lanes",
    "describe_device",
    "describe_numerics",
    "device_memory",
    "import_jax",
    "is_out_of_memory",
    "make_dropout",
    "make_optimizer",
    "package_versions",
    "remove_unsafe_variables",
    "task_slices",
    "task_weights",
    "use_compilation_cache",
    "weighted_loss",
]
