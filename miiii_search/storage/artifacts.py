"""Artifacts in the study's own database: a worker elsewhere needs one URL and no shared disk."""

from __future__ import annotations

import io
import json
import mimetypes
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound

from miiii_search.storage import schema
from miiii_search.storage.database import MAX_ARTIFACT_BYTES, Database

LEARNING_CURVES = "learning-curves.png"
"""The picture that every trial has."""


@dataclass(frozen=True)
class Artifact:
    """A file to be kept with a trial."""

    filename: str
    data: bytes


class DatabaseArtifactStore:
    """Optuna's `ArtifactStore` protocol on our table `miiii_artifacts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The artifact's bytes. Raises `ArtifactNotFound`."""
        with self._database.engine.connect() as connection:
            query = sa.select(schema.artifacts.c.data).where(schema.artifacts.c.artifact_id == artifact_id)
            data = connection.execute(query).scalar_one_or_none()
        if data is None:
            raise ArtifactNotFound(f"there is no artifact {artifact_id}")
        return io.BytesIO(data)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Stores the bytes. Raises `ValueError` above `MAX_ARTIFACT_BYTES`."""
        with self._database.transaction() as connection:
            write_bytes(connection, artifact_id, content_body.read(MAX_ARTIFACT_BYTES + 1))

    def remove(self, artifact_id: str) -> None:
        """Deletes the bytes. Raises `ArtifactNotFound`."""
        with self._database.transaction() as connection:
            found = connection.execute(sa.delete(schema.artifacts).where(schema.artifacts.c.artifact_id == artifact_id))
            if found.rowcount == 0:
                raise ArtifactNotFound(f"there is no artifact {artifact_id}")


TRIAL_ARTIFACT_PREFIX = "artifacts:"
"""Optuna's attributes of trials and studies that name an artifact."""
STUDY_ARTIFACT_PREFIX = "dashboard:artifacts:"
"""The dashboard's attributes of a study, `dashboard:artifacts:<trial_id>:<artifact_id>`."""


def linked_artifact_ids(connection: sa.Connection, study_id: int) -> list[str]:
    """The ids of the artifacts that attributes of a study or of its trials name."""
    of_study, of_trials, trials = schema.study_system_attributes, schema.trial_system_attributes, schema.trials
    keys = [
        *connection.execute(
            sa.select(of_study.c.key).where(
                of_study.c.study_id == study_id,
                of_study.c.key.like(f"{TRIAL_ARTIFACT_PREFIX}%") | of_study.c.key.like(f"{STUDY_ARTIFACT_PREFIX}%"),
            )
        ).scalars(),
        *connection.execute(
            sa.select(of_trials.c.key)
            .join(trials, trials.c.trial_id == of_trials.c.trial_id)
            .where(trials.c.study_id == study_id, of_trials.c.key.like(f"{TRIAL_ARTIFACT_PREFIX}%"))
        ).scalars(),
    ]
    return sorted({key.rpartition(":")[2] for key in keys})


@dataclass(frozen=True)
class Attachment:
    """An artifact that was added to a trial after its end: an attribute of the study names it."""

    key: str
    trial_id: int
    artifact_id: str


def find_attachments(connection: sa.Connection, study_id: int, trial_ids: Collection[int]) -> list[Attachment]:
    """What was added to these trials after their ends."""
    table = schema.study_system_attributes
    query = sa.select(table.c.key).where(table.c.study_id == study_id, table.c.key.like(f"{STUDY_ARTIFACT_PREFIX}%"))
    wanted = {str(trial_id): trial_id for trial_id in trial_ids}
    parts = [
        (key, *key.removeprefix(STUDY_ARTIFACT_PREFIX).partition(":")) for key in connection.execute(query).scalars()
    ]
    return [Attachment(key, wanted[trial_id], name) for key, trial_id, _, name in sorted(parts) if trial_id in wanted]


def delete_attachments(connection: sa.Connection, study_id: int, files: Sequence[Attachment]) -> None:
    """Removes what `find_attachments` returned: attributes, and bytes in the database."""
    table, artifacts = schema.study_system_attributes, schema.artifacts
    keys, ids = [file.key for file in files], [file.artifact_id for file in files]
    connection.execute(sa.delete(table).where(table.c.study_id == study_id, table.c.key.in_(keys)))
    connection.execute(sa.delete(artifacts).where(artifacts.c.artifact_id.in_(ids)))


def write_bytes(connection: sa.Connection, artifact_id: str, data: bytes) -> None:
    """Stores an artifact's bytes within a transaction. Raises `ValueError` above `MAX_ARTIFACT_BYTES`."""
    if len(data) > MAX_ARTIFACT_BYTES:
        raise ValueError(f"an artifact in the database has at most {MAX_ARTIFACT_BYTES} bytes, this one {len(data)}")
    connection.execute(sa.insert(schema.artifacts), [{"artifact_id": artifact_id, "data": data}])


def store_artifact(connection: sa.Connection, artifact: Artifact) -> tuple[str, str]:
    """Stores an artifact within a transaction; returns the trial attribute that makes Optuna know of it.

    Unlike Optuna's `upload_artifact`, the bytes come first, so that nothing ever points to an artifact that is
    not there.
    """
    artifact_id = str(uuid.uuid4())
    write_bytes(connection, artifact_id, artifact.data)
    return artifact_link(artifact_id, artifact.filename)


def artifact_link(artifact_id: str, filename: str) -> tuple[str, str]:
    """The trial attribute, key and value, that makes Optuna know of an artifact that is stored."""
    mimetype, encoding = mimetypes.guess_type(filename)
    meta: dict[str, Any] = {
        "artifact_id": artifact_id,
        "filename": filename,
        "mimetype": mimetype or "application/octet-stream",
        "encoding": encoding,
    }
    return f"{TRIAL_ARTIFACT_PREFIX}{artifact_id}", json.dumps(meta)
