"""A pool of trainers: which thread of a process trains which run."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Sequence

import jax

from miiii_search.training.device import count_cores
from miiii_search.training.fair_semaphore import FairSemaphore
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program, ProgramKey
from miiii_search.training.trainer import Trainer
from miiii_search.training.trainer_messages import ChunkTiming, RunRequest, TrainerEvent


class TrainerPool:
    """Trains runs of any shape. What becomes of them is read from the queue `events`.

    On a CPU each run has its own trainer, so that runs overlap and none waits for another. As many compute at once as
    there are cores. Elsewhere the runs of a program are lanes of one trainer, which uses all devices.

    Args:
        batched: Whether the runs of a program are trained in one batch. By default they are, except on a CPU.
        on_chunk: Called after each chunk, in a trainer's thread.
        save_seconds: Seconds between two `RunSaved` of a run. If finite, all runs are also saved at the end.
    """

    def __init__(
        self,
        batched: bool | None = None,
        on_chunk: Callable[[ChunkTiming], None] = lambda chunk: None,
        save_seconds: float = math.inf,
    ) -> None:
        # Not a SimpleQueue: in CPython 3.11 its `get` may wait forever if a signal arrives as the timeout ends.
        self.events: queue.Queue[TrainerEvent] = queue.Queue()
        self._batched = jax.default_backend() != "cpu" if batched is None else batched
        self._on_chunk = on_chunk
        self._save_seconds = save_seconds
        self._semaphore = FairSemaphore(count_cores())
        self._programs: dict[ProgramKey, Program] = {}
        self._trainer_of_program: dict[ProgramKey, Trainer] = {}
        self._trainer_of_run: dict[int, Trainer] = {}

    @property
    def devices(self) -> int:
        """Number of devices that train. All cores of a CPU are one device."""
        return jax.device_count() if self._batched else 1

    @property
    def keys(self) -> list[ProgramKey]:
        """The keys of the programs that were needed so far."""
        return list(self._programs)

    def program(self, key: ProgramKey) -> Program:
        """Return the program of a key. All runs with this key share it."""
        if key not in self._programs:
            self._programs[key] = Program(key)
        return self._programs[key]

    def admit(self, runs: Sequence[RunRequest]) -> None:
        """Train runs. Those of one program start together."""
        by_key: dict[ProgramKey, list[RunRequest]] = {}
        for run in runs:
            by_key.setdefault(ProgramKey.of(run.experiment, run.hyperparameters), []).append(run)
        for key, runs_of_key in by_key.items():
            if self._batched:
                if key not in self._trainer_of_program:
                    self._trainer_of_program[key] = self._start_trainer(key)
                self._trainer_of_program[key].admit(runs_of_key)
                self._trainer_of_run.update({run.number: self._trainer_of_program[key] for run in runs_of_key})
            else:
                for run in runs_of_key:
                    self._trainer_of_run[run.number] = self._start_trainer(key)
                    self._trainer_of_run[run.number].admit([run])

    def stop(self, number: int) -> None:
        """End a run at its current epoch; see `Trainer.stop`."""
        if number in self._trainer_of_run:
            self._trainer_of_run[number].stop(number)

    def suspend(self, number: int) -> bool:
        """Save a run and free its lane; see `Trainer.suspend`.

        Returns:
            Whether there is such a run.
        """
        if number in self._trainer_of_run:
            self._trainer_of_run[number].suspend(number)
        return number in self._trainer_of_run

    def drop(self, number: int) -> None:
        """Forget a run, whether it has ended or not."""
        trainer = self._trainer_of_run.pop(number, None)
        if trainer is not None:
            trainer.drop(number)
            if not self._batched:
                trainer.close()

    def close(self, seconds: float) -> None:
        """End all trainers after their current chunks, and wait for them at most for a number of seconds."""
        deadline = time.monotonic() + seconds
        trainers = [*self._trainer_of_run.values(), *self._trainer_of_program.values()]
        for trainer in trainers:
            trainer.close()
        for trainer in trainers:
            trainer.join(max(0, deadline - time.monotonic()))

    def _start_trainer(self, key: ProgramKey) -> Trainer:
        lanes = Lanes(key, self._batched, self.program(key))
        return Trainer(lanes, self.events.put, self._semaphore, self._on_chunk, self._save_seconds)
