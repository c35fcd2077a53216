from .abandoned import AbandonedTrial, find_abandoned, find_studies_with_overdue
from .archive_rows import ArchiveError, InconsistentRowsError, Row
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
    Attachment,
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
from .error_advice import explain
from .hints import file_argument, hides_password, hint
from .new_trials import insert_trials
from .records import (
    FinishedTrial,
    KnownTrials,
    NewTrial,
    PeerReports,
    PrunedTrial,
    RunningTrial,
    StoredArtifacts,
    StoredCheckpoint,
    StudyContents,
    StudyCounts,
    StudyIdentity,
    StudyRow,
    TrialRef,
    WaitingTrial,
)
from .retry import DatabaseRetry, driver_message, is_database_error, is_operational_error, is_outage, is_write_refusal
from .revisions import Revision, read_revisions
from .roles import drop_worker, role_name
from .schema import leases, trial_system_attributes, trials
from .sqlite import network_file_system
from .study_catalog import CatalogReader, StudyCatalog
from .study_reader import StudyReader
from .study_store import StudyStore
from .study_transaction import StudyTransaction
from .trial_counts import count_at_least_as_good, count_solved, count_trials, count_trials_by_study
from .urls import parse_url, postgres_url, redact_url
from .usage import Usage, read_usage
from .write_check import try_writing

__all__ = [
    "AbandonedTrial",
    "ArchiveError",
    "Artifact",
    "ArtifactStoreUnavailableError",
    "Attachment",
    "CatalogReader",
    "CombinedArtifactStore",
    "Database",
    "DatabaseArtifactStore",
    "DatabaseRetry",
    "FinishedTrial",
    "InconsistentRowsError",
    "KnownTrials",
    "NewTrial",
    "PeerReports",
    "PrunedTrial",
    "RemoteArtifactStore",
    "Revision",
    "Row",
    "RunningTrial",
    "StoredArtifacts",
    "StoredCheckpoint",
    "StudyCatalog",
    "StudyContents",
    "StudyCounts",
    "StudyIdentity",
    "StudyReader",
    "StudyRow",
    "StudyStore",
    "StudyTransaction",
    "TrialRef",
    "Usage",
    "WaitingTrial",
    "artifact_link",
    "check_store",
    "count_at_least_as_good",
    "count_solved",
    "count_trials",
    "count_trials_by_study",
    "delete_attachments",
    "driver_message",
    "drop_worker",
    "explain",
    "file_argument",
    "find_abandoned",
    "find_attachments",
    "find_studies_with_overdue",
    "hides_password",
    "hint",
    "insert_trials",
    "is_database_error",
    "is_operational_error",
    "is_outage",
    "is_write_refusal",
    "leases",
    "linked_artifact_ids",
    "network_file_system",
    "open_database",
    "open_store",
    "parse_store_url",
    "parse_url",
    "postgres_url",
    "prepare_store",
    "read_revisions",
    "read_usage",
    "redact_url",
    "remove_artifacts",
    "role_name",
    "store_artifact",
    "trial_system_attributes",
    "trials",
    "try_writing",
    "write_bytes",
]
