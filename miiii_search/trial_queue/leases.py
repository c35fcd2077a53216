"""Leases: which worker trains which trial, and until when no other worker may."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Lease:
    """The right of one worker to train one trial.

    Attributes:
        trial_id: Optuna's id of the trial.
        number: Number of the trial within its study.
        token: Random text that identifies the lease. A trial that is claimed again gets another token.
    """

    trial_id: int
    number: int
    token: str


@dataclass(frozen=True)
class Heartbeat:
    """The progress of a trial, which a worker sends when it renews the lease.

    Attributes:
        lease: The lease.
        epoch: Number of epochs trained.
        epochs_per_second: Current speed of this trial.
        saved_epoch: Epoch of the last checkpoint; 0 if there is none.
    """

    lease: Lease
    epoch: int
    epochs_per_second: float
    saved_epoch: int = 0


def utc_now() -> datetime:
    """Return the current time as Optuna 5 stores it: UTC without a time zone."""
    return datetime.now(UTC).replace(tzinfo=None)
