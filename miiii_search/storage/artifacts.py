"""Artifacts of trials, stored in the study's own database, so that workers need one URL and no shared disk."""

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
from miiii_search.storage.database import Database

MAX_ARTIFACT_BYTES = 64 * 2**20
"""Size limit of one artifact in the database, in bytes. A trial's record and figures are far below 1 MiB."""

LEARNING_CURVES = "learning-curves.png"
"""File name of the figure that every trial has."""

TRIAL_ARTIFACT_PREFIX = "artifacts:"
"""Prefix of the attributes with which Optuna links an artifact to a trial or a study: `artifacts:<artifact_id>`."""

STUDY_ARTIFACT_PREFIX = "dashboard:artifacts:"
"""Prefix of the dashboard's attributes of a study: `dashboard:artifacts:<trial_id>:<artifact_id>`."""


@dataclass(frozen=True)
class Artifact:
    """A file that is stored with a trial."""

    filename: str
    data: bytes


class DatabaseArtifactStore:
    """Optuna's `ArtifactStore` protocol on our table `miiii_artifacts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Return the bytes of an artifact as a file.

        Raises:
            ArtifactNotFound: The database has no such artifact.
        """
        with self._database.engine.connect() as connection:
            query = sa.select(schema.artifacts.c.data).where(schema.artifacts.c.artifact_id == artifact_id)
            data = connection.execute(query).scalar_one_or_none()
        if data is None:
            raise ArtifactNotFound(f"there is no artifact {artifact_id}")
        return io.BytesIO(data)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store the bytes of an artifact.

        Raises:
            ValueError: There are more than `MAX_ARTIFACT_BYTES` bytes.
        """
        with self._database.transaction() as connection:
            write_bytes(connection, artifact_id, content_body.read(MAX_ARTIFACT_BYTES + 1))

    def remove(self, artifact_id: str) -> None:
        """Delete the bytes of an artifact.

        Raises:
            ArtifactNotFound: The database has no such artifact.
        """
        with self._database.transaction() as connection:
            found = connection.execute(sa.delete(schema.artifacts).where(schema.artifacts.c.artifact_id == artifact_id))
            if found.rowcount == 0:
                raise ArtifactNotFound(f"there is no artifact {artifact_id}")


def linked_artifact_ids(connection: sa.Connection, study_id: int) -> list[str]:
    """Return the ids of all artifacts that attributes of the study or of its trials link, sorted."""
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
    """An artifact that was added to a trial after its end. An attribute of the study links it.

    Attributes:
        key: Name of that attribute.
        trial_id: Optuna's id of the trial.
        artifact_id: Id of the artifact.
    """

    key: str
    trial_id: int
    artifact_id: str


def find_attachments(connection: sa.Connection, study_id: int, trial_ids: Collection[int]) -> list[Attachment]:
    """Return the artifacts that were added to these trials after they had ended."""
    table = schema.study_system_attributes
    query = sa.select(table.c.key).where(table.c.study_id == study_id, table.c.key.like(f"{STUDY_ARTIFACT_PREFIX}%"))
    known = {str(trial_id): trial_id for trial_id in trial_ids}
    attachments = []
    for key in sorted(connection.execute(query).scalars()):
        trial_id, _, artifact_id = key.removeprefix(STUDY_ARTIFACT_PREFIX).partition(":")
        if trial_id in known:
            attachments.append(Attachment(key, known[trial_id], artifact_id))
    return attachments


def delete_attachments(connection: sa.Connection, study_id: int, attachments: Sequence[Attachment]) -> None:
    """Delete the attributes that link these artifacts, and their bytes if the database holds them."""
    table, artifacts = schema.study_system_attributes, schema.artifacts
    keys, ids = [file.key for file in attachments], [file.artifact_id for file in attachments]
    connection.execute(sa.delete(table).where(table.c.study_id == study_id, table.c.key.in_(keys)))
    connection.execute(sa.delete(artifacts).where(artifacts.c.artifact_id.in_(ids)))


def write_bytes(connection: sa.Connection, artifact_id: str, data: bytes) -> None:
    """Store the bytes of an artifact within a transaction.

    Raises:
        ValueError: There are more than `MAX_ARTIFACT_BYTES` bytes.
    """
    if len(data) > MAX_ARTIFACT_BYTES:
        raise ValueError(f"an artifact in the database has at most {MAX_ARTIFACT_BYTES} bytes, this one {len(data)}")
    connection.execute(sa.insert(schema.artifacts), [{"artifact_id": artifact_id, "data": data}])


def store_artifact(connection: sa.Connection, artifact: Artifact) -> tuple[str, str]:
    """Store the bytes of an artifact within a transaction.

    Optuna's `upload_artifact` writes the link first. Here the bytes come first, so that no link points to an artifact
    that does not exist.

    Returns:
        The trial attribute that links the artifact, as for `artifact_link`. The caller writes it.
    """
    artifact_id = str(uuid.uuid4())
    write_bytes(connection, artifact_id, artifact.data)
    return artifact_link(artifact_id, artifact.filename)


def artifact_link(artifact_id: str, filename: str) -> tuple[str, str]:
    """Return the trial attribute, as key and value, with which Optuna links a stored artifact to a trial."""
    mimetype, encoding = mimetypes.guess_type(filename)
    meta: dict[str, Any] = {
        "artifact_id": artifact_id,
        "filename": filename,
        "mimetype": mimetype or "application/octet-stream",
        "encoding": encoding,
    }
    return f"{TRIAL_ARTIFACT_PREFIX}{artifact_id}", json.dumps(meta)
