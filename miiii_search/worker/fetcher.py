"""Which trials a worker takes from the queue, and how many at once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial

from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.study_spec import rungs
from miiii_search.errors import MiiiiSearchError, StorageUnavailableError
from miiii_search.experiment.text import format_params
from miiii_search.samplers.grid_ei import GridEISampler
from miiii_search.samplers.optuna_samplers import TrialSampler
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.study import Study
from miiii_search.study.trials import shape_of
from miiii_search.training.autotune import choose_lanes
from miiii_search.training.device import is_out_of_memory
from miiii_search.training.lane_stores import LANE_WIDTHS
from miiii_search.training.program import ProgramKey
from miiii_search.training.trainer_messages import RunRequest, RunsOutOfMemory
from miiii_search.training.trainer_pool import TrainerPool
from miiii_search.trial_queue import leases
from miiii_search.trial_queue.leases import Lease
from miiii_search.trial_queue.results import RETRIES_KEY
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.checkpoints import shared_epochs

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
"""Between two looks at an empty queue, while others still train what may come back to it."""


class TrialFetcher:
    """Claims trials for one worker, resumes them, and gives them to its trainer pool. For the worker's main thread.

    `lanes` is how many are trained at once; None measures how many are best. What does not fit into the memory
    lowers it.
    """

    def __init__(
        self,
        study: Study,
        worker: str,
        lanes: int | None,
        trainers: TrainerPool,
        writer: CheckpointWriter | None,
        patience: DatabaseRetry,
        seed: int,
    ) -> None:
        self._study = study
        self._worker = worker
        self._lanes = lanes
        self._trainers = trainers
        self._checkpoint_writer = writer
        self._retry = patience
        self._log_fields = {"study": study.name, "worker": worker}
        self._sampled = None if study.spec.is_grid_search else TrialSampler(study, seed)
        self._ranking = GridEISampler(study)
        self._started = 0
        self._empty_until = 0.0
        self._measuring: Future[tuple[int, str]] | None = None
        self._held_back: list[RunRequest] = []
        self._failed: Counter[str] = Counter()
        """How often in a row a lane of this shape did not fit, although it was the only one, and got nowhere."""
        self._unfit: dict[str, str] = {}
        """Shapes of which not even one lane fits, and what it needs."""

    def fill(self, held: Collection[ActiveTrial]) -> dict[int, ActiveTrial]:
        """Claims trials until all lanes are taken or the queue is empty, beside those that are `held`: in lanes, or
        ended and being written.

        Returns what was claimed, by the number that the pool knows a run by: a trial may come back to the worker that
        lost it, as another run.
        """
        if self._measuring is not None and self._measuring.done():
            self._end_measuring(self._measuring)
        claimed: dict[int, ActiveTrial] = {}
        if self._measuring is not None or time.monotonic() < self._empty_until:
            return claimed
        training = sum(assignment.trains for assignment in held)
        runs: list[RunRequest] = []
        while (free := self.lanes - training - len(runs)) > 0:
            try:
                found = self._retry.attempt(partial(self._claim, held, list(runs), free))
            except StorageUnavailableError:
                break  # what was claimed in spite of it comes back when its lease runs out
            if not found:
                self._empty_until = time.monotonic() + IDLE_SECONDS
                break
            claimed |= {run.number: assignment for assignment, run in found}
            runs += [run for _, run in found]
        if runs and self._lanes is None:
            # In a thread: this compiles, which may take longer than a lease, and than anyone's patience.
            [run], self._held_back = runs, runs
            program = self._trainers.program(ProgramKey.of(run.experiment, run.hyperparameters))
            self._measuring = _in_thread(lambda: choose_lanes(program, run.experiment, run.hyperparameters))
        else:
            self._trainers.admit(runs)
        return claimed

    def shrink(self, event: RunsOutOfMemory, hit: Sequence[ActiveTrial], training: int) -> None:
        """Lowers the number of lanes, since of `training` ones those that were `hit` did not fit."""
        if not hit:
            return
        if all(assignment.beside == 1 for assignment in hit):
            self._count_failure(hit[0], event.bytes_per_lane, event.reason)
        elif self._lanes is None or any(assignment.beside == self._lanes for assignment in hit):  # not shrunk yet
            lanes = max(assignment.beside for assignment in hit)
            fewer = max((w for w in LANE_WIDTHS if w < len(hit)), default=0)
            self._lanes = max(1, min(training - len(hit) + fewer, lanes - 1))
            logger.warning(
                f"out of memory with {lanes} lanes ({event.reason}): "
                f"at most {self._lanes} from now on; {len(hit)} go back to the queue",
                extra=self._log_fields,
            )

    @property
    def lanes(self) -> int:
        """How many trials are trained at once at most; 1 until that has been measured."""
        return self._lanes or 1

    def check_fit(self) -> None:
        """To be called when there is nothing to train here, though trials wait.

        Raises `MiiiiSearchError` if they wait for a larger machine, and nobody else trains any.
        """
        if self._unfit and not self._study.counts()[TrialState.RUNNING]:
            needs = "; ".join(f"{shape} {why}" for shape, why in self._unfit.items())
            raise MiiiiSearchError(
                f"not one lane fits into the memory of this machine: {needs}; give the worker a larger device, "
                "or the study smaller experiments"
            )

    def _count_failure(self, assignment: ActiveTrial, bytes_per_lane: int | None, reason: str) -> None:
        hyperparameters = assignment.hyperparameters
        shape = shape_of(hyperparameters.d_model, hyperparameters.n_heads)
        needs = f"needs {bytes_per_lane / 2**20:,.0f} MiB a lane" if bytes_per_lane else "does not fit"
        needs = f"{needs} ({reason})"
        logger.warning(
            f"out of memory with 1 lane: trial {assignment.lease.number} goes back to the queue, {shape} {needs}",
            extra=self._log_fields | {"trial": assignment.lease.number},
        )
        # Once may be by chance: the lane before it was still there, or another process took the memory.
        progressed = assignment.progress.epoch > assignment.origin.get("epoch", 0)
        self._failed[shape] = 1 if progressed else self._failed[shape] + 1
        if self._failed[shape] > 1:
            self._unfit[shape] = needs

    def _end_measuring(self, measuring: Future[tuple[int, str]]) -> None:
        self._measuring = None
        try:
            self._lanes, why = measuring.result()
            logger.info(f"{self._lanes} lane{'s'[: self._lanes > 1]}: {why}", extra=self._log_fields)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._lanes = 1  # the one that waits finds out how much it needs
        self._trainers.admit(self._held_back)

    def _claim(
        self, held: Collection[ActiveTrial], runs: Sequence[RunRequest], n: int
    ) -> list[tuple[ActiveTrial, RunRequest]]:
        """Claims up to `n` trials beside those that are about to begin; only one where nothing is compiled yet, so
        that the others are of its shape."""
        spec, database = self._study.spec, self._study.database
        keys = [*self._trainers.keys, *(ProgramKey.of(run.experiment, run.hyperparameters) for run in runs)]
        compiled = [shape_of(key.d_model, key.n_heads) for key in keys]
        seconds, n = spec.lease_seconds, n if compiled else 1
        first: Sequence[int] = ()
        if spec.sampler == "grid_ei" and not self._study.paused:
            own = {assignment.lease.trial_id: assignment.value for assignment in held if assignment.end}
            first = self._ranking.next_trials(n, own, compiled, self._unfit)
        claimed = leases.claim(
            database,
            self._study.study_id,
            self._worker,
            seconds,
            n=n,
            first_ids=first,
            preferred_shapes=compiled,
            excluded_shapes=self._unfit,
        )
        if not claimed and self._sampled is not None:
            lease = self._sampled.create_trial(self._worker, seconds)
            claimed = [lease] if lease else []
        ids = [lease.trial_id for lease in claimed]
        trials = self._study.read_trials(ids) if ids else {}
        shared = shared_epochs(database, ids) if ids and self._checkpoint_writer else {}
        return [self._begin(lease, trials[lease.trial_id], shared.get(lease.trial_id, 0)) for lease in claimed]

    def _begin(self, lease: Lease, trial: FrozenTrial, shared_epoch: int) -> tuple[ActiveTrial, RunRequest]:
        experiment, hyperparameters = self._study.trial_settings(trial)
        assignment = ActiveTrial(lease, experiment, hyperparameters, rungs(experiment), beside=self._lanes or 1)
        assignment.retries = int(trial.user_attrs.get(RETRIES_KEY, 0))
        load = self._checkpoint_writer.load if self._checkpoint_writer else lambda *_: None
        saved = load(lease.trial_id, experiment, hyperparameters, shared_epoch)
        at = ""
        if saved is not None:
            assignment.resume(saved)
            at = f" from epoch {saved.epoch:,}"
        logger.info(
            f"Trial {lease.number} starts{at}: {format_params(trial.params)}",
            extra=self._log_fields | {"trial": lease.number, "epoch": saved.epoch if saved else 0},
        )
        self._started += 1
        return assignment, RunRequest(self._started, experiment, hyperparameters, saved.state if saved else None)


def _in_thread(work: Callable[[], tuple[int, str]]) -> Future[tuple[int, str]]:
    """What a thread comes to that may be left behind: compiling cannot be interrupted."""
    future: Future[tuple[int, str]] = Future()

    def main() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=main, name="measuring", daemon=True).start()
    return future
