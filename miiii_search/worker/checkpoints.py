"""Where checkpoints of running trials lie: on the worker's own disk often, in the database seldom.

Only the newest matters, and none is needed once its trial has ended. A checkpoint that cannot be written costs
nothing but the epochs since the last one; a bad one is passed over for the one before it.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.files import write_file
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.study_attrs import ID_KEY
from miiii_search.study.study import Study
from miiii_search.training.checkpoint import Checkpoint, CheckpointError
from miiii_search.trial_queue import leases
from miiii_search.trial_queue.leases import Heartbeat

KEPT = 2
"""Files of a trial: if the newest is bad, there is the one before it."""


@dataclass(frozen=True)
class Policy:
    """How often checkpoints are written, and where."""

    folder: Path
    """On the worker's own disk."""
    save_seconds: float = 60.0
    """Between two files of a trial; what a SIGKILL costs."""
    share_seconds: float = 600.0
    """Between two copies of a trial in the database; what the loss of a machine costs."""
    share_bytes_per_second: float = 2e6
    """Of a worker, on average; a drain may use what was saved up."""


class ByteBudget:
    """A token bucket: so many bytes a second on average, and no more at once than ten minutes' worth."""

    def __init__(self, bytes_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._limit = 600 * bytes_per_second
        self._bytes, self._at = min(60 * bytes_per_second, self._limit), clock()

    def take(self, size: int) -> bool:
        """Whether so many bytes may be sent now; if so, they are counted."""
        now = self._clock()
        self._bytes, self._at = min(self._limit, self._bytes + self._rate * (now - self._at)), now
        if size > self._bytes:
            return False
        self._bytes -= size
        return True


class LocalCheckpoints:
    """Files `DATABASE/STUDY/trial-ID.epoch-N.ckpt` in a folder; trials by their id in the database.

    STUDY is the study's random id, so that neither its name nor the spelling of the storage's URL matters. DATABASE
    keeps a copied database, whose studies have the ids of the original's, apart from the original.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self._database = study.database
        self._of_database = folder / study.database.instance_id()
        self.folder = self._of_database / study.identity

    def save(self, trial_id: int, epoch: int, data: bytes) -> None:
        """Writes a checkpoint, whole or not at all, and removes those that it makes needless. Raises `OSError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self._path(trial_id, epoch), data)
        for old in self._files(trial_id)[KEPT:]:
            old.unlink(missing_ok=True)

    def load(self, trial_id: int, experiment: Experiment, hyperparameters: Hyperparameters) -> Loaded:
        """The newest good checkpoint of a trial, and what was wrong with newer ones."""
        problems: list[str] = []
        for path in self._files(trial_id):
            try:
                return Loaded(_read(path.read_bytes(), experiment, hyperparameters), problems)
            except (OSError, CheckpointError) as error:
                problems.append(f"{path}: {error}")
        return Loaded(None, problems)

    def remove(self, trial_id: int) -> None:
        """Removes all checkpoints of a trial."""
        for path in self.folder.glob(f"trial-{trial_id:d}.epoch-*"):  # and what a killed process was writing
            path.unlink(missing_ok=True)

    def remove_deleted_studies(self) -> None:
        """Removes what this machine still holds of studies that are no longer in the database. Raises `OSError`."""
        found = [path for path in self._of_database.glob("*") if re.fullmatch("[0-9a-f]{32}", path.name)]
        with self._database.engine.connect() as connection:  # after the folders, which are younger than their studies
            known = study_attrs.read_from_all_studies(connection, ID_KEY)
        for folder in found:
            if folder.name not in known:
                shutil.rmtree(folder)

    def trial_ids(self) -> set[int]:
        """The trials that have files here."""
        found = (re.match(r"trial-(\d+)\.epoch-", path.name) for path in self.folder.glob("trial-*.epoch-*"))
        return {int(match[1]) for match in found if match}

    def _path(self, trial_id: int, epoch: int) -> Path:
        return self.folder / f"trial-{trial_id:d}.epoch-{epoch:d}.ckpt"

    def _files(self, trial_id: int) -> list[Path]:
        """Newest first."""
        epochs = [re.search(r"epoch-(\d+)", path.name) for path in self.folder.glob(f"trial-{trial_id:d}.epoch-*.ckpt")]
        return [self._path(trial_id, epoch) for epoch in sorted((int(e[1]) for e in epochs if e), reverse=True)]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint, if a good one was found, and what was wrong with others."""

    checkpoint: Checkpoint | None
    problems: list[str]


def share(database: Database, heartbeat: Heartbeat, epoch: int, data: bytes, seconds: float) -> bool:
    """Puts a checkpoint into the database, over the one that is there; False if the lease was lost."""
    with database.transaction() as connection:
        if not leases.renew(connection, [heartbeat], seconds):
            return False
        row = {"trial_id": heartbeat.lease.trial_id, "epoch": epoch, "data": data}
        schema.upsert(connection, schema.checkpoints, [row], ("trial_id",))
    return True


def shared_epochs(database: Database, trial_ids: Collection[int]) -> dict[int, int]:
    """The epochs of the checkpoints in the database, of those trials that have one."""
    table = schema.checkpoints
    with database.engine.connect() as connection:
        query = sa.select(table.c.trial_id, table.c.epoch).where(table.c.trial_id.in_(trial_ids))
        return {row.trial_id: row.epoch for row in connection.execute(query)}


def load_shared(database: Database, trial_id: int, experiment: Experiment, hyperparameters: Hyperparameters) -> Loaded:
    """The checkpoint of a trial in the database."""
    with database.engine.connect() as connection:
        query = sa.select(schema.checkpoints.c.data).where(schema.checkpoints.c.trial_id == trial_id)
        data = connection.execute(query).scalar_one_or_none()
    if data is None:
        return Loaded(None, [])
    try:
        return Loaded(_read(data, experiment, hyperparameters), [])
    except CheckpointError as error:
        return Loaded(None, [f"the one in the database: {error}"])


def newest(
    local: LocalCheckpoints,
    database: Database,
    trial_id: int,
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    shared_epoch: int,
) -> Loaded:
    """The newest good checkpoint within reach; the one in the database is of `shared_epoch`, 0 if there is none."""
    here = local.load(trial_id, experiment, hyperparameters)
    if shared_epoch <= (here.checkpoint.epoch if here.checkpoint else 0):
        return here
    there = load_shared(database, trial_id, experiment, hyperparameters)
    return Loaded(there.checkpoint or here.checkpoint, [*here.problems, *there.problems])


def _read(data: bytes, experiment: Experiment, hyperparameters: Hyperparameters) -> Checkpoint:
    checkpoint = Checkpoint.from_bytes(data)
    if not checkpoint.is_of(experiment, hyperparameters):
        raise CheckpointError("it is of another run")
    return checkpoint
