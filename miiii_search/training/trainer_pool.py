"""The trainers of one process: which thread trains which run."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Sequence

import jax

from miiii_search.training.device import cores
from miiii_search.training.fair_semaphore import FairSemaphore
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program, ProgramKey
from miiii_search.training.trainer import ChunkTiming, RunRequest, Trainer, TrainerEvent


class TrainerPool:
    """Trains any runs, whatever their shape; what becomes of them is read from `posted`.

    On a CPU every run has a trainer of its own, so that runs overlap and none waits for another; as many compute
    at once as there are cores. Elsewhere the runs of a program are lanes of one trainer, which drives all devices.
    """

    def __init__(
        self,
        batched: bool | None = None,
        on_chunk: Callable[[ChunkTiming], None] = lambda chunk: None,
        save_seconds: float = math.inf,
    ) -> None:
        # Not a SimpleQueue, whose `get` may wait for ever where a signal comes as its timeout ends (CPython 3.11).
        self.events: queue.Queue[TrainerEvent] = queue.Queue()
        self._batched = jax.default_backend() != "cpu" if batched is None else batched
        self._on_chunk = on_chunk
        self._save_seconds = save_seconds
        self._semaphore = FairSemaphore(cores())
        self._programs: dict[ProgramKey, Program] = {}
        self._of_programs: dict[ProgramKey, Trainer] = {}
        self._of_runs: dict[int, Trainer] = {}

    @property
    def devices(self) -> int:
        """How many devices train. The cores of a CPU are one."""
        return jax.device_count() if self._batched else 1

    @property
    def keys(self) -> list[ProgramKey]:
        """The programs that were needed so far."""
        return list(self._programs)

    def program(self, key: ProgramKey) -> Program:
        """The program of this key, the same one for all its runs."""
        if key not in self._programs:
            self._programs[key] = Program(key)
        return self._programs[key]

    def admit(self, runs: Sequence[RunRequest]) -> None:
        """Trains runs; those of one program are begun together."""
        by_key: dict[ProgramKey, list[RunRequest]] = {}
        for run in runs:
            by_key.setdefault(ProgramKey.of(run.experiment, run.hyperparameters), []).append(run)
        for key, of_key in by_key.items():
            if self._batched:
                if key not in self._of_programs:
                    self._of_programs[key] = self._trainer(key)
                self._of_programs[key].admit(of_key)
                self._of_runs.update({run.number: self._of_programs[key] for run in of_key})
            else:
                for run in of_key:
                    self._of_runs[run.number] = self._trainer(key)
                    self._of_runs[run.number].admit([run])

    def stop(self, number: int) -> None:
        """Ends a run where it stands, see `Trainer.stop`."""
        if number in self._of_runs:
            self._of_runs[number].stop(number)

    def suspend(self, number: int) -> bool:
        """Saves a run and frees its lane, see `Trainer.suspend`. Returns whether there is such a run."""
        if number in self._of_runs:
            self._of_runs[number].suspend(number)
        return number in self._of_runs

    def drop(self, number: int) -> None:
        """Forgets a run, which may have ended."""
        trainer = self._of_runs.pop(number, None)
        if trainer is not None:
            trainer.drop(number)
            if not self._batched:
                trainer.close()

    def close(self, seconds: float) -> None:
        """Ends all training at the ends of the chunks under way, and waits so long for them."""
        trainers, until = [*self._of_runs.values(), *self._of_programs.values()], time.monotonic() + seconds
        for trainer in trainers:
            trainer.close()
        for trainer in trainers:
            trainer.join(max(0, until - time.monotonic()))

    def _trainer(self, key: ProgramKey) -> Trainer:
        lanes = Lanes(key, self._batched, self.program(key))
        return Trainer(lanes, self.events.put, self._semaphore, self._on_chunk, self._save_seconds)
