from .artifact_stores import (
    ArtifactStoreUnavailableError,
    RemoteArtifactStore,
    check_store,
    open_store,
    parse_store_url,
    prepare_store,
    remove_artifacts,
)
from .artifacts import (
    Artifact,
    DatabaseArtifactStore,
    artifact_link,
    delete_attachments,
    find_attachments,
    linked_artifact_ids,
    store_artifact,
    write_bytes,
)
from .combined_artifact_store import CombinedArtifactStore
from .database import Database, open_database
from .deleted_studies import read_deletions, record_deletion_if_missing
from .error_advice import explain
from .retry import DatabaseRetry, driver_message, is_outage, is_write_refusal
from .revisions import Revision, read_revisions, renew_revision
from .schema import leases, trial_system_attributes, trials
from .sqlite import network_file_system
from .urls import parse_url, redact_url

__all__ = [
    "Artifact",
    "ArtifactStoreUnavailableError",
    "CombinedArtifactStore",
    "Database",
    "DatabaseArtifactStore",
    "DatabaseRetry",
    "RemoteArtifactStore",
    "Revision",
    "artifact_link",
    "check_store",
    "delete_attachments",
    "driver_message",
    "explain",
    "find_attachments",
    "is_outage",
    "is_write_refusal",
    "leases",
    "linked_artifact_ids",
    "network_file_system",
    "open_database",
    "open_store",
    "parse_store_url",
    "parse_url",
    "prepare_store",
    "read_deletions",
    "read_revisions",
    "record_deletion_if_missing",
    "redact_url",
    "remove_artifacts",
    "renew_revision",
    "store_artifact",
    "trial_system_attributes",
    "trials",
    "write_bytes",
]
