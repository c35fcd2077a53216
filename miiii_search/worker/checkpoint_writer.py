"""A thread that writes checkpoints, so that training waits neither for the disk nor for the database."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

from miiii_search import failpoints
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.retry import is_outage
from miiii_search.study.study import Study
from miiii_search.training.checkpoint import Checkpoint
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.worker.checkpoints import (
    ByteBudget,
    LocalCheckpoints,
    load_newest_checkpoint,
)
from miiii_search.worker.options import CheckpointPolicy

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Saves and loads the checkpoints of one worker's trials.

    A failure is logged and does not end the worker: at worst, some epochs are trained again.
    """

    def __init__(self, study: Study, policy: CheckpointPolicy) -> None:
        self._study = study
        self._policy = policy
        self._local = LocalCheckpoints(policy.folder, study)
        self._budget = ByteBudget(policy.share_bytes_per_second)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._shared_at: dict[Lease, float] = {}
        self._unshared: list[tuple[Heartbeat, int, bytes]] = []
        """Checkpoints that `close` shares. Used by the writing thread only."""
        self._deadline: float | None = None

    @property
    def is_draining(self) -> bool:
        """Whether the last checkpoints before the worker stops are being written."""
        return self._deadline is not None

    def load(
        self, trial_id: int, experiment: Experiment, hyperparameters: Hyperparameters, shared_epoch: int
    ) -> Checkpoint | None:
        """Return the newest intact checkpoint of a trial, or None. Damaged ones are logged and skipped.

        Args:
            trial_id: Id of the trial in the database.
            experiment: Experiment that the checkpoint must belong to.
            hyperparameters: Hyperparameters that the checkpoint must belong to.
            shared_epoch: Epoch of the trial's checkpoint in the database; 0 if there is none.
        """
        found = load_newest_checkpoint(
            self._local, self._study.queue, trial_id, experiment, hyperparameters, shared_epoch
        )
        for problem in found.problems:
            logger.warning(f"a checkpoint was skipped: {problem}", extra={"study": self._study.name})
        return found.checkpoint

    def save(self, heartbeat: Heartbeat, checkpoint: Checkpoint, is_last: bool = False) -> Future[int | None]:
        """Write a checkpoint to the disk, and to the database if it is time.

        Args:
            heartbeat: Progress with which the trial's lease is renewed.
            checkpoint: The checkpoint.
            is_last: Whether it is the last one before a pause. It is written to the database in any case then.

        Returns:
            A future of the checkpoint's epoch, or of None if the disk did not accept it.
        """
        return self._thread.submit(self._save, heartbeat, checkpoint, is_last)

    def remove(self, trial_id: int) -> None:
        """Remove the checkpoint files of a trial that has ended."""
        try:
            self._local.remove(trial_id)
        except OSError as error:
            logger.warning(f"cannot remove the checkpoints of an ended trial: {error}")

    def sweep(self) -> None:
        """Remove checkpoint files of trials that ended on other machines, and of deleted studies."""
        try:
            self._local.remove_deleted_studies()
        except OSError as error:
            logger.warning(f"cannot remove the checkpoints of a deleted study: {error}")
        for trial_id in self._study.queue.find_finished(self._local.trial_ids()):
            self.remove(trial_id)

    def drain(self, deadline: float) -> None:
        """Begin to stop: have `close` write all checkpoints that are saved from now on to the database.

        Args:
            deadline: End of the writing, in seconds of `time.monotonic`.
        """
        self._deadline = deadline
        failpoints.reach("drain")

    def close(self) -> None:
        """Finish writing, until the deadline: first everything to the disk, then to the database."""
        rest = self._thread.submit(self._share_rest)
        wait([rest], max((self._deadline or 0.0) - time.monotonic(), 0.0))
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _save(self, heartbeat: Heartbeat, checkpoint: Checkpoint, is_last: bool) -> int | None:
        lease, data, saved = heartbeat.lease, checkpoint.to_bytes(), None
        try:
            self._local.save(lease.trial_id, checkpoint.epoch, data)
            saved = checkpoint.epoch
            failpoints.reach("checkpoint-saved")
        except OSError as error:
            logger.warning(
                f"cannot save trial {lease.number} in {self._local.folder}: {error.strerror}",
                extra={"study": self._study.name, "trial": lease.number, "epoch": checkpoint.epoch},
            )
        due = time.monotonic() - self._shared_at.setdefault(lease, time.monotonic()) >= self._policy.share_seconds
        if self.is_draining:
            self._unshared.append((heartbeat, checkpoint.epoch, data))
        elif due or is_last or saved is None:  # a checkpoint that is not on the disk is shared at once
            self._share(heartbeat, checkpoint.epoch, data)
        return saved

    def _share_rest(self) -> None:
        for unshared in self._unshared:
            self._share(*unshared)

    def _share(self, heartbeat: Heartbeat, epoch: int, data: bytes) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            return
        if not self._budget.try_consume(len(data)):
            return
        try:
            self._study.queue.share_checkpoint(heartbeat, epoch, data, self._study.spec.lease_seconds)
        except Exception as error:
            if not is_outage(error):
                raise
            return
        self._shared_at[heartbeat.lease] = time.monotonic()
