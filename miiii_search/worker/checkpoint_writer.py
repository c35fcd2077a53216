"""A thread that writes checkpoints, so that no disk and no database keeps training waiting."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import sqlalchemy as sa

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.retry import is_outage
from miiii_search.study.study import Study
from miiii_search.training.checkpoint import Checkpoint
from miiii_search.trial_queue.leases import Heartbeat, Lease, find_finished
from miiii_search.worker.checkpoints import ByteBudget, LocalCheckpoints, Policy, newest, share

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Saves and finds the checkpoints of one worker's trials. What fails is logged, and costs no more than time."""

    def __init__(self, study: Study, policy: Policy) -> None:
        self._study = study
        self._policy = policy
        self._local = LocalCheckpoints(policy.folder, study)
        self._budget = ByteBudget(policy.share_bytes_per_second)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._shared_at: dict[Lease, float] = {}
        self._unshared: list[tuple[Heartbeat, int, bytes]] = []
        """Of a drain. Touched by the thread alone."""
        self._deadline: float | None = None

    @property
    def drains(self) -> bool:
        """Whether the last checkpoints are being written."""
        return self._deadline is not None

    def load(
        self, trial_id: int, experiment: Experiment, hyperparameters: Hyperparameters, shared_epoch: int
    ) -> Checkpoint | None:
        """The newest good checkpoint of a trial that this worker can reach; see `checkpoints.newest`."""
        found = newest(self._local, self._study.database, trial_id, experiment, hyperparameters, shared_epoch)
        for problem in found.problems:
            logger.warning(f"a checkpoint was passed over: {problem}", extra={"study": self._study.name})
        return found.checkpoint

    def save(self, heartbeat: Heartbeat, checkpoint: Checkpoint, last: bool = False) -> Future[int | None]:
        """Writes a checkpoint to the disk and to the database, if it is time or the `last` one before a pause.

        Comes to its epoch, or to None if the disk took nothing.
        """
        return self._thread.submit(self._save, heartbeat, checkpoint, last)

    def remove(self, trial_id: int) -> None:
        """Removes the checkpoints of a trial that has ended."""
        try:
            self._local.remove(trial_id)
        except OSError as error:
            logger.warning(f"cannot remove the checkpoints of an ended trial: {error}")

    def sweep(self) -> None:
        """Removes what this machine still holds of trials that ended elsewhere, and of deleted studies."""
        try:
            self._local.remove_deleted_studies()
        except OSError as error:
            logger.warning(f"cannot remove the checkpoints of a deleted study: {error}")
        for trial_id in find_finished(self._study.database, self._local.trial_ids()):
            self.remove(trial_id)

    def drain(self, deadline: float) -> None:
        """From now on all that is saved is shared by `close`, as far as the byte budget and the deadline allow."""
        self._deadline = deadline

    def close(self) -> None:
        """Writes what is left to write, until the deadline: all to the disk before one is shared."""
        rest = self._thread.submit(self._share_rest)
        wait([rest], max((self._deadline or 0.0) - time.monotonic(), 0.0))
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _save(self, heartbeat: Heartbeat, checkpoint: Checkpoint, last: bool) -> int | None:
        lease, data, saved = heartbeat.lease, checkpoint.to_bytes(), None
        try:
            self._local.save(lease.trial_id, checkpoint.epoch, data)
            saved = checkpoint.epoch
        except OSError as error:
            logger.warning(
                f"cannot save trial {lease.number} in {self._local.folder}: {error.strerror}",
                extra={"study": self._study.name, "trial": lease.number, "epoch": checkpoint.epoch},
            )
        due = time.monotonic() - self._shared_at.setdefault(lease, time.monotonic()) >= self._policy.share_seconds
        if self.drains:
            self._unshared.append((heartbeat, checkpoint.epoch, data))
        elif due or last or saved is None:  # a disk that takes nothing is a reason to share at once
            self._share(heartbeat, checkpoint.epoch, data)
        return saved

    def _share_rest(self) -> None:
        for unshared in self._unshared:
            self._share(*unshared)

    def _share(self, heartbeat: Heartbeat, epoch: int, data: bytes) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            return
        if not self._budget.take(len(data)):
            return
        try:
            share(self._study.database, heartbeat, epoch, data, self._study.spec.lease_seconds)
        except sa.exc.DBAPIError as error:
            if not is_outage(error):
                raise
            return
        self._shared_at[heartbeat.lease] = time.monotonic()
