"""Settings of a worker that do not depend on the study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GRACE_SECONDS = 10.0
"""Default time limit, in seconds, for saving trials and returning them to the queue when a worker stops."""


@dataclass(frozen=True)
class CheckpointPolicy:
    """Location and frequency of the checkpoints of running trials."""

    folder: Path
    """Folder on the worker's own disk."""
    save_seconds: float = 60.0
    """Seconds between two checkpoint files of a trial. A SIGKILL loses at most this much training."""
    share_seconds: float = 600.0
    """Seconds between two copies of a trial in the database. The loss of a machine loses at most this much training."""
    share_bytes_per_second: float = 2e6
    """Average rate, in bytes per second, at which one worker writes checkpoints into the database.

    When a worker stops, it may use what it has saved up.
    """


@dataclass(frozen=True)
class WorkerOptions:
    """Options of one worker."""

    name: str | None = None
    """Name that people recognize. None derives one from the host; see `worker_name`."""
    checkpoints: CheckpointPolicy | None = None
    """Location and frequency of checkpoints. Without them, a trial that is requeued starts again at epoch 0."""
    snapshots: Path | None = None
    """Folder for snapshots of the weights at log-spaced epochs. Each study gets a folder of its own in it."""
    any_version: bool = False
    """Train the study even if this version trains its runs differently."""
    grace_seconds: float = GRACE_SECONDS
    """Time limit, in seconds, for saving trials and returning them to the queue when the worker stops."""
