"""A trainer pool that trains nothing, for tests and benchmarks that need the rest of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from miiii_search.training.program import ProgramKey
from miiii_search.training.trainer_messages import RunRequest
from miiii_search.training.trainer_pool import TrainerPool

LaneT = TypeVar("LaneT")


class FakeTrainerPool(TrainerPool, Generic[LaneT]):
    """Base class of trainer pools without devices: it keeps track of runs and their programs.

    A subclass defines `events` and `start_run`, and stores what it needs about a run in `_lanes`, by the run's number.
    """

    def __init__(self) -> None:  # without the base class's, which looks for devices
        self._known: dict[ProgramKey, None] = {}
        self._lanes: dict[int, LaneT] = {}

    @property
    def devices(self) -> int:
        """Number of devices, always 1."""
        return 1

    @property
    def keys(self) -> list[ProgramKey]:
        """Keys of the programs of all runs so far."""
        return list(self._known)

    def admit(self, runs: Sequence[RunRequest]) -> None:
        """Put runs into lanes."""
        for run in runs:
            self._known[ProgramKey.of(run.experiment, run.hyperparameters)] = None
            self.start_run(run)

    def start_run(self, run: RunRequest) -> None:
        """Put a run into a lane. Called once per admitted run."""
        raise NotImplementedError

    def drop(self, number: int) -> None:
        """Forget a run."""
        self._lanes.pop(number, None)

    def close(self, seconds: float) -> None:
        """Forget all runs."""
        self._lanes.clear()
