"""The study's database and its artifacts.

`database` opens a storage URL and `retry` waits while the database is unavailable. `schema` defines the tables;
`study_attrs`, `notes`, `deleted_studies` and `revisions` read and write what is stored about a study. `artifacts` holds
files in the database, `artifact_stores` holds them in a folder or an S3 bucket. The names below are imported when they
are first used, because some of them load Optuna.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, RemoteArtifactStore
    from miiii_search.storage.artifacts import Artifact, DatabaseArtifactStore
    from miiii_search.storage.combined_artifact_store import CombinedArtifactStore
    from miiii_search.storage.database import Database, open_database
    from miiii_search.storage.retry import DatabaseRetry
    from miiii_search.storage.urls import parse_url, redact_url

__all__ = [
    "Artifact",
    "ArtifactStoreUnavailableError",
    "CombinedArtifactStore",
    "Database",
    "DatabaseArtifactStore",
    "DatabaseRetry",
    "RemoteArtifactStore",
    "open_database",
    "parse_url",
    "redact_url",
]

_MODULES = {
    "Artifact": "artifacts",
    "ArtifactStoreUnavailableError": "artifact_stores",
    "CombinedArtifactStore": "combined_artifact_store",
    "Database": "database",
    "DatabaseArtifactStore": "artifacts",
    "DatabaseRetry": "retry",
    "RemoteArtifactStore": "artifact_stores",
    "open_database": "database",
    "parse_url": "urls",
    "redact_url": "urls",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
