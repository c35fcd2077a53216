"""Claims trials from the queue for the lanes of one worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.study_spec import rungs
from miiii_search.errors import MiiiiSearchError, StorageUnavailableError
from miiii_search.experiment.text import format_params
from miiii_search.samplers.grid_ei import GridEISampler
from miiii_search.samplers.optuna_samplers import TrialSampler
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.storage.trial_attrs import RETRIES_KEY
from miiii_search.study.study import Study
from miiii_search.study.trials import shape_of
from miiii_search.training.program import ProgramKey
from miiii_search.training.trainer_messages import RunRequest
from miiii_search.training.trainer_pool import TrainerPool
from miiii_search.trial_queue.leases import Lease
from miiii_search.worker.active_trial import ActiveTrial, RungReports
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.lane_tuner import LaneTuner

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
"""Seconds between two attempts to claim from an empty queue. Trials of other workers may still return to it."""


class TrialFetcher:
    """Claims trials for one worker, resumes them, and gives them to its trainer pool.

    For use by the worker's main thread.

    Args:
        study: The study.
        log_fields: Fields of every log record: `study` and `worker`.
        tuner: Chooses the number of lanes.
        trainers: The pool that trains the trials.
        checkpoint_writer: Finds checkpoints; None if the worker keeps none.
        retry: Retries for the database.
        seed: Seed of a sampler that draws points.
    """

    def __init__(
        self,
        study: Study,
        log_fields: Mapping[str, str],
        tuner: LaneTuner,
        trainers: TrainerPool,
        checkpoint_writer: CheckpointWriter | None,
        retry: DatabaseRetry,
        *,
        seed: int,
    ) -> None:
        self._study = study
        self._log_fields = log_fields
        self._tuner = tuner
        self._trainers = trainers
        self._checkpoint_writer = checkpoint_writer
        self._retry = retry
        self._sampler = None if study.spec.is_grid_search else TrialSampler(study, seed)
        self._grid_sampler = GridEISampler(study)
        self._n_runs = 0
        self._empty_until = 0.0

    @property
    def lanes(self) -> int:
        """Maximum number of trials that are trained at once; 1 until that has been measured."""
        return self._tuner.lanes

    def fill(self, held: Collection[ActiveTrial]) -> dict[int, ActiveTrial]:
        """Claim trials until all lanes are occupied or the queue is empty.

        Args:
            held: The trials that the worker holds: in lanes, or ended and being written.

        Returns:
            The claimed trials by the number of their run in the trainer pool. A trial may return to the worker that
            lost it, as another run.
        """
        claimed: dict[int, ActiveTrial] = {}
        if self._tuner.is_measuring() or time.monotonic() < self._empty_until:
            return claimed
        n_training = sum(trial.is_training for trial in held)
        runs: list[RunRequest] = []
        while (free := self._tuner.lanes - n_training - len(runs)) > 0:
            try:
                found = self._retry.attempt(partial(self._claim, held, list(runs), free))
            except StorageUnavailableError:
                break  # if trials were claimed nevertheless, they return to the queue when their leases expire
            if not found:
                self._empty_until = time.monotonic() + IDLE_SECONDS
                break
            claimed |= {run.number: trial for trial, run in found}
            runs += [run for _, run in found]
        self._tuner.admit(runs)
        return claimed

    def check_fit(self) -> None:
        """Check that the waiting trials fit into this machine's memory, when there is nothing to train.

        Raises:
            MiiiiSearchError: Trials wait for a machine with more memory, and no other worker trains any.
        """
        if self._tuner.unfit and not self._study.counts()[TrialState.RUNNING]:
            needs = "; ".join(f"{shape} {why}" for shape, why in self._tuner.unfit.items())
            raise MiiiiSearchError(
                f"not one lane fits into the memory of this machine: {needs}; give the worker a larger device, "
                "or the study smaller experiments"
            )

    def _claim(
        self, held: Collection[ActiveTrial], runs: Sequence[RunRequest], n: int
    ) -> list[tuple[ActiveTrial, RunRequest]]:
        """Claim up to `n` trials, in addition to the `runs` that are about to start.

        Only one trial is claimed if no program is compiled yet, so that the others can have its shape.
        """
        spec, queue = self._study.spec, self._study.queue
        keys = [*self._trainers.keys, *(ProgramKey.of(run.experiment, run.hyperparameters) for run in runs)]
        compiled = [shape_of(key.d_model, key.n_heads, key.switches) for key in keys]
        unfit = self._tuner.unfit
        seconds, n = spec.lease_seconds, n if compiled else 1
        first: Sequence[int] = ()
        if spec.sampler == "grid_ei" and not self._study.paused:
            own_values = {trial.lease.trial_id: trial.value for trial in held if trial.has_ended}
            first = self._grid_sampler.next_trials(n, own_values, compiled, unfit)
        worker = self._log_fields["worker"]
        claimed = queue.claim(worker, seconds, n=n, first_ids=first, preferred_shapes=compiled, excluded_shapes=unfit)
        if not claimed and self._sampler is not None:
            lease = self._sampler.create_trial(worker, seconds)
            claimed = [lease] if lease else []
        ids = [lease.trial_id for lease in claimed]
        trials = self._study.read_trials(ids) if ids else {}
        shared = queue.checkpoint_epochs(ids) if ids and self._checkpoint_writer else {}
        return [self._start(lease, trials[lease.trial_id], shared.get(lease.trial_id, 0)) for lease in claimed]

    def _start(self, lease: Lease, trial: FrozenTrial, shared_epoch: int) -> tuple[ActiveTrial, RunRequest]:
        """Return a claimed trial, and the run that trains it from its newest checkpoint or from epoch 0."""
        experiment, hyperparameters = self._study.trial_settings(trial)
        active = ActiveTrial(
            lease, experiment, hyperparameters, RungReports(rungs(experiment)), lanes_at_claim=self._tuner.lanes
        )
        active.retries = int(trial.user_attrs.get(RETRIES_KEY, 0))
        load = self._checkpoint_writer.load if self._checkpoint_writer else lambda *_: None
        saved = load(lease.trial_id, experiment, hyperparameters, shared_epoch)
        origin = ""
        if saved is not None:
            active.resume(saved)
            origin = f" from epoch {saved.epoch:,}"
        logger.info(
            f"Trial {lease.number} starts{origin}: {format_params(trial.params)}",
            extra={**self._log_fields, "trial": lease.number, "epoch": saved.epoch if saved else 0},
        )
        self._n_runs += 1
        return active, RunRequest(self._n_runs, experiment, hyperparameters, saved.state if saved else None)
