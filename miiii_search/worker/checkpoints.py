"""Checkpoints of running trials: often on the worker's own disk, seldom in the database.

Only the newest checkpoint of a trial matters, and none is needed once the trial has ended. If one cannot be written,
only the epochs since the previous one are at risk. If one is damaged, the previous one is used.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.files import write_file
from miiii_search.storage.study_attrs import ID_KEY
from miiii_search.study.study import Study
from miiii_search.training.checkpoint import Checkpoint, CheckpointError
from miiii_search.trial_queue.trial_queue import TrialQueue

FILES_PER_TRIAL = 2
"""Number of checkpoint files kept per trial. If the newest is damaged, the previous one is used."""


class ByteBudget:
    """A token bucket that limits the average rate of writing into the database.

    Args:
        bytes_per_second: Average rate. At most the bytes of ten minutes can be written at once.
        clock: Returns the time in seconds.
    """

    def __init__(self, bytes_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._limit = 600 * bytes_per_second
        self._bytes, self._at = min(60 * bytes_per_second, self._limit), clock()

    def try_consume(self, size: int) -> bool:
        """Return whether `size` bytes may be written now. If so, they are counted."""
        now = self._clock()
        self._bytes, self._at = min(self._limit, self._bytes + self._rate * (now - self._at)), now
        if size > self._bytes:
            return False
        self._bytes -= size
        return True


class LocalCheckpoints:
    """Checkpoint files `DATABASE/STUDY/trial-ID.epoch-N.ckpt` in a folder, where ID is the trial's id in the database.

    STUDY is the study's random id, which depends neither on its name nor on the spelling of the storage's URL.
    DATABASE identifies the database: the studies of a copied database have the same ids as those of the original.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self._database = study.database
        self._database_folder = folder / study.database.instance_id()
        self.folder = self._database_folder / study.identity

    def save(self, trial_id: int, epoch: int, data: bytes) -> None:
        """Write a checkpoint atomically, and remove older ones that are not needed any more.

        Raises:
            OSError: The file cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self._path(trial_id, epoch), data)
        for old in self._files(trial_id)[FILES_PER_TRIAL:]:
            old.unlink(missing_ok=True)

    def load(self, trial_id: int, experiment: Experiment, hyperparameters: Hyperparameters) -> LoadResult:
        """Load the newest intact checkpoint of a trial."""
        problems: list[str] = []
        for path in self._files(trial_id):
            try:
                return LoadResult(_read(path.read_bytes(), experiment, hyperparameters), problems)
            except (OSError, CheckpointError) as error:
                problems.append(f"{path}: {error}")
        return LoadResult(None, problems)

    def remove(self, trial_id: int) -> None:
        """Remove all checkpoints of a trial."""
        for path in self.folder.glob(f"trial-{trial_id:d}.epoch-*"):  # including unfinished files of a killed process
            path.unlink(missing_ok=True)

    def remove_deleted_studies(self) -> None:
        """Remove the checkpoints of studies that are no longer in the database.

        Raises:
            OSError: A folder cannot be removed.
        """
        found = [path for path in self._database_folder.glob("*") if re.fullmatch("[0-9a-f]{32}", path.name)]
        known = self._database.studies.read_attribute(ID_KEY)  # after listing, so that no new study is missing
        for folder in found:
            if folder.name not in known:
                shutil.rmtree(folder)

    def trial_ids(self) -> set[int]:
        """Return the ids of the trials that have checkpoint files."""
        found = (re.match(r"trial-(\d+)\.epoch-", path.name) for path in self.folder.glob("trial-*.epoch-*"))
        return {int(match[1]) for match in found if match}

    def _path(self, trial_id: int, epoch: int) -> Path:
        return self.folder / f"trial-{trial_id:d}.epoch-{epoch:d}.ckpt"

    def _files(self, trial_id: int) -> list[Path]:
        """Return the checkpoint files of a trial, newest first."""
        epochs = [re.search(r"epoch-(\d+)", path.name) for path in self.folder.glob(f"trial-{trial_id:d}.epoch-*.ckpt")]
        return [self._path(trial_id, epoch) for epoch in sorted((int(e[1]) for e in epochs if e), reverse=True)]


@dataclass(frozen=True)
class LoadResult:
    """The newest intact checkpoint of a trial."""

    checkpoint: Checkpoint | None
    """None if there is no intact one."""
    problems: list[str]
    """Descriptions of damaged checkpoints that were skipped, one line each."""


def load_newest_checkpoint(
    local: LocalCheckpoints,
    queue: TrialQueue,
    trial_id: int,
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    shared_epoch: int,
) -> LoadResult:
    """Load the newest intact checkpoint of a trial, from the disk or the database.

    Args:
        local: Checkpoint files of this machine.
        queue: The queue of the study, which has the shared checkpoints.
        trial_id: Id of the trial in the database.
        experiment: Experiment that the checkpoint must belong to.
        hyperparameters: Hyperparameters that the checkpoint must belong to.
        shared_epoch: Epoch of the checkpoint in the database; 0 if there is none.
    """
    here = local.load(trial_id, experiment, hyperparameters)
    if shared_epoch <= (here.checkpoint.epoch if here.checkpoint else 0):
        return here
    there = _load_shared(queue, trial_id, experiment, hyperparameters)
    return LoadResult(there.checkpoint or here.checkpoint, [*here.problems, *there.problems])


def _load_shared(
    queue: TrialQueue, trial_id: int, experiment: Experiment, hyperparameters: Hyperparameters
) -> LoadResult:
    """Load the checkpoint of a trial from the database."""
    data = queue.load_checkpoint(trial_id)
    if data is None:
        return LoadResult(None, [])
    try:
        return LoadResult(_read(data, experiment, hyperparameters), [])
    except CheckpointError as error:
        return LoadResult(None, [f"the one in the database: {error}"])


def _read(data: bytes, experiment: Experiment, hyperparameters: Hyperparameters) -> Checkpoint:
    checkpoint = Checkpoint.from_bytes(data)
    if not checkpoint.is_of(experiment, hyperparameters):
        raise CheckpointError("it belongs to another run")
    return checkpoint
