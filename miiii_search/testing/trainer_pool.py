"""A trainer pool that trains nothing, for what simulates the rest of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from miiii_search.training.program import ProgramKey
from miiii_search.training.trainer import RunRequest
from miiii_search.training.trainer_pool import TrainerPool

LaneT = TypeVar("LaneT")


class FakeTrainerPool(TrainerPool, Generic[LaneT]):
    """Knows its runs and their programs; what becomes of them, and `posted`, is the derived class's."""

    def __init__(self) -> None:  # the pool's own would look for devices
        self._known: dict[ProgramKey, None] = {}
        self._lanes: dict[int, LaneT] = {}

    @property
    def devices(self) -> int:
        return 1

    @property
    def keys(self) -> list[ProgramKey]:
        return list(self._known)

    def admit(self, runs: Sequence[RunRequest]) -> None:
        for run in runs:
            self._known[ProgramKey.of(run.experiment, run.hyperparameters)] = None
            self.start_run(run)

    def start_run(self, run: RunRequest) -> None:
        """A run gets a lane."""
        raise NotImplementedError

    def drop(self, number: int) -> None:
        self._lanes.pop(number, None)

    def close(self, seconds: float) -> None:
        self._lanes.clear()
