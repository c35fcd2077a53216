"""The number of trials that a worker trains at once: given, measured, or lowered when the memory is too small."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from miiii_search.study.trials import shape_of
from miiii_search.training.autotune import choose_lanes
from miiii_search.training.device import is_out_of_memory
from miiii_search.training.lane_stores import LANE_WIDTHS
from miiii_search.training.program import ProgramKey
from miiii_search.training.trainer_messages import RunRequest, RunsOutOfMemory
from miiii_search.training.trainer_pool import TrainerPool
from miiii_search.worker.active_trial import ActiveTrial

logger = logging.getLogger(__name__)


class LaneTuner:
    """Chooses the number of lanes of one worker. For use by the worker's main thread.

    Args:
        lanes: The number of lanes; None measures how many lanes train fastest.
        trainers: The pool that trains the runs.
        log_fields: Fields of every log record.
    """

    def __init__(self, lanes: int | None, trainers: TrainerPool, log_fields: Mapping[str, object]) -> None:
        self._lanes = lanes
        self._trainers = trainers
        self._log_fields = log_fields
        self._measurement: Future[tuple[int, str]] | None = None
        self._held_back: list[RunRequest] = []
        """The run that waits for the measurement to end."""
        self._failures: Counter[str] = Counter()
        """Consecutive failures by shape of a lane that did not fit, although it was alone, and made no progress."""
        self.unfit: dict[str, str] = {}
        """Shapes of which not even one lane fits, and how much memory one needs, in words."""

    @property
    def lanes(self) -> int:
        """Maximum number of trials that are trained at once; 1 until that has been measured."""
        return self._lanes or 1

    def is_measuring(self) -> bool:
        """Return whether a measurement is under way. One that has finished is applied first."""
        if self._measurement is not None and self._measurement.done():
            self._finish_measurement(self._measurement)
        return self._measurement is not None

    def admit(self, runs: list[RunRequest]) -> None:
        """Give runs to the trainer pool. If the number of lanes is unknown, measure it with the only run first."""
        if not runs or self._lanes is not None:
            self._trainers.admit(runs)
            return
        # In a thread: this compiles, which may take longer than a lease lasts.
        [run], self._held_back = runs, runs
        program = self._trainers.program(ProgramKey.of(run.experiment, run.hyperparameters))
        self._measurement = _run_in_daemon_thread(lambda: choose_lanes(program, run.experiment, run.hyperparameters))

    def withdraw(self, number: int) -> None:
        """Forget a run that waits for the measurement to end. Runs that the pool has are not concerned."""
        self._held_back = [run for run in self._held_back if run.number != number]

    def shrink(self, event: RunsOutOfMemory, hit: Sequence[ActiveTrial], n_training: int) -> None:
        """Lower the number of lanes after the memory was too small.

        Args:
            event: What the trainer reported.
            hit: The trials that did not fit.
            n_training: Number of trials that were being trained, including those that did not fit.
        """
        if not hit:
            return
        if all(trial.lanes_at_claim == 1 for trial in hit):
            self._count_failure(hit[0], event.bytes_per_lane, event.reason)
        elif self._lanes is None or any(trial.lanes_at_claim == self._lanes for trial in hit):  # not lowered yet
            lanes = max(trial.lanes_at_claim for trial in hit)
            fewer = max((width for width in LANE_WIDTHS if width < len(hit)), default=0)
            self._lanes = max(1, min(n_training - len(hit) + fewer, lanes - 1))
            logger.warning(
                f"out of memory with {lanes} lanes ({event.reason}): "
                f"at most {self._lanes} from now on; {len(hit)} go back to the queue",
                extra=self._log_fields,
            )

    def _count_failure(self, trial: ActiveTrial, bytes_per_lane: int | None, reason: str) -> None:
        key = ProgramKey.of(trial.experiment, trial.hyperparameters)
        shape = shape_of(key.d_model, key.n_heads, key.switches)
        needs = f"needs {bytes_per_lane / 2**20:,.0f} MiB per lane" if bytes_per_lane else "does not fit"
        needs = f"{needs} ({reason})"
        logger.warning(
            f"out of memory with 1 lane: trial {trial.lease.number} goes back to the queue, {shape} {needs}",
            extra={**self._log_fields, "trial": trial.lease.number},
        )
        # One failure may be chance: the previous lane was not freed yet, or another process used the memory.
        progressed = trial.history.progress.epoch > trial.history.origin.get("epoch", 0)
        self._failures[shape] = 1 if progressed else self._failures[shape] + 1
        if self._failures[shape] > 1:
            self.unfit[shape] = needs

    def _finish_measurement(self, measurement: Future[tuple[int, str]]) -> None:
        self._measurement = None
        try:
            self._lanes, why = measurement.result()
            logger.info(f"{self._lanes} lane{'s'[: self._lanes > 1]}: {why}", extra=self._log_fields)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._lanes = 1  # the run that waits finds out how much memory it needs
        self._trainers.admit(self._held_back)


def _run_in_daemon_thread(function: Callable[[], tuple[int, str]]) -> Future[tuple[int, str]]:
    """Call a function in a thread that does not keep the process alive: compilation cannot be interrupted."""
    future: Future[tuple[int, str]] = Future()

    def main() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=main, name="measuring", daemon=True).start()
    return future
