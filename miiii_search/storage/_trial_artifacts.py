"""The artifacts of finished trials: those that a worker stored, and those that were attached later."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from miiii_search.storage import schema
from miiii_search.storage.artifacts import TRIAL_ARTIFACT_PREFIX, Attachment, delete_attachments, find_attachments
from miiii_search.storage.records import StoredArtifacts


def find_artifacts(
    connection: sa.Connection, study_id: int, trial_ids: Collection[int]
) -> tuple[StoredArtifacts, list[Attachment]]:
    """Return the artifacts of these trials, and those of them that were attached later."""
    attributes, artifacts = schema.trial_system_attributes, schema.artifacts
    links = connection.execute(sa.select(attributes.c.trial_id, attributes.c.key).where(_is_link(trial_ids))).all()
    attachments = find_attachments(connection, study_id, trial_ids)
    artifact_ids = [
        *(row.key.removeprefix(TRIAL_ARTIFACT_PREFIX) for row in links),
        *(file.artifact_id for file in attachments),
    ]
    size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(artifacts.c.data)), 0)).where(
        artifacts.c.artifact_id.in_(artifact_ids)
    )
    trials = frozenset(row.trial_id for row in links) | {file.trial_id for file in attachments}
    found = StoredArtifacts(trials, tuple(artifact_ids), int(connection.execute(size).scalar_one()))
    return found, attachments


def delete_artifacts(
    connection: sa.Connection,
    study_id: int,
    trial_ids: Collection[int],
    artifact_ids: Collection[str],
    attachments: Sequence[Attachment],
) -> None:
    """Delete the links of these trials' artifacts, and the bytes that the database stores."""
    attributes, artifacts = schema.trial_system_attributes, schema.artifacts
    delete_attachments(connection, study_id, attachments)
    connection.execute(sa.delete(attributes).where(_is_link(trial_ids)))
    connection.execute(sa.delete(artifacts).where(artifacts.c.artifact_id.in_(artifact_ids)))


def _is_link(trial_ids: Collection[int]) -> Any:
    attributes = schema.trial_system_attributes
    return attributes.c.trial_id.in_(trial_ids) & attributes.c.key.like(f"{TRIAL_ARTIFACT_PREFIX}%")
