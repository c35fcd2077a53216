"""One artifact store for all studies of a database, wherever each of them keeps its artifacts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import schema
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, open_store, parse_store_url
from miiii_search.storage.artifacts import DatabaseArtifactStore
from miiii_search.storage.database import Database
from miiii_search.storage.study_attrs import ARTIFACT_STORE_KEY

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore


class CombinedArtifactStore:
    """Optuna's `ArtifactStore` protocol for all studies of a database, wherever each keeps its artifacts.

    The dashboard uses it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._database_store = DatabaseArtifactStore(database)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Return the bytes of an artifact as a file.

        Raises:
            ArtifactNotFound: No store has such an artifact.
            ArtifactStoreUnavailableError: The artifact was not found, but a store is unavailable that may have it.
        """
        reader: BinaryIO = self._try_stores(lambda store: store.open_reader(artifact_id), artifact_id)
        return reader

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store an artifact that a visitor uploads. It is in the database, because its study is not known here."""
        self._database_store.write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Delete the bytes of an artifact. Raises the same exceptions as `open_reader`."""

        def remove(store: ArtifactStore) -> None:
            store.open_reader(artifact_id).close()  # S3 does not report that an object to be removed is missing
            store.remove(artifact_id)

        self._try_stores(remove, artifact_id)

    def _try_stores(self, action: Callable[[ArtifactStore], Any], artifact_id: str) -> Any:
        unavailable: Exception | None = None
        try:
            return action(self._database_store)
        except ArtifactNotFound:
            pass
        for store_url in self._store_urls():
            try:
                return action(open_store(store_url))
            except ArtifactNotFound:
                continue
            except MiiiiSearchError as error:  # unavailable, or boto3 is missing
                unavailable = ArtifactStoreUnavailableError(f"{store_url}: {error}")
        raise unavailable or ArtifactNotFound(f"there is no artifact {artifact_id}")

    def _store_urls(self) -> list[str]:
        attributes = schema.study_system_attributes
        query = sa.select(attributes.c.value_json).where(attributes.c.key == ARTIFACT_STORE_KEY).distinct()
        with self._database.engine.connect() as connection:
            return sorted(parse_store_url(json.loads(text)) for text in connection.execute(query).scalars())
