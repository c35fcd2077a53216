"""Places for artifacts outside of the study's database: a folder that all machines share, or a bucket of S3's kind.

The place is a property of the study, so a worker needs the storage's URL and nothing else. Credentials for S3 come
from where boto3 looks for them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, a profile, a role); they are stored nowhere.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from miiii_search.errors import MiiiiSearchError
from miiii_search.redaction import hide_passwords
from miiii_search.storage import schema
from miiii_search.storage.artifacts import DatabaseArtifactStore
from miiii_search.storage.database import Database
from miiii_search.storage.retry import driver_message
from miiii_search.storage.study_attrs import ARTIFACT_STORE_KEY

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

CONNECT_SECONDS, READ_SECONDS, TRIES = 5, 30, 3
"""A store that does not answer keeps a trial's end waiting for two minutes at most, and costs artifacts."""

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What we and Optuna name artifacts. Nothing else is looked for outside of the database: no name leaves its folder."""

MARKER = ".miiii-search"
"""The file that a place gets when it is first used. Without it, and without artifacts, a folder may be a mount point
with nothing mounted: what is missing there may be elsewhere."""


class ArtifactStoreUnavailableError(Exception):
    """A place of artifacts does not answer, or refuses."""


def parse_store_url(text: str) -> str:
    """`file:///FOLDER` or `s3://BUCKET/PREFIX`, in one way of writing. Raises `MiiiiSearchError` for anything else."""
    if text.startswith("/"):
        return Path(os.path.normpath(text)).as_uri()
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("")
    plain = not (url.query or url.fragment)
    if url.scheme == "file" and not url.netloc and url.path.startswith("/") and plain:
        return Path(os.path.normpath(unquote(url.path))).as_uri()
    if url.scheme == "s3" and "@" in url.netloc:
        raise MiiiiSearchError(
            "--artifacts must have no credentials; boto3 finds them in AWS_ACCESS_KEY_ID and the like"
        )
    if url.scheme == "s3" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", url.netloc) and plain:
        return f"s3://{url.netloc}{url.path.rstrip('/')}"
    raise MiiiiSearchError("--artifacts must be a folder's whole path, file:///FOLDER or s3://BUCKET/PREFIX")


def prepare_store(place: str) -> None:
    """Makes a folder if there is none, and tries to write. Raises `MiiiiSearchError` if that fails."""
    try:
        if place.startswith("file:"):
            _folder(place).mkdir(parents=True, exist_ok=True)
        RemoteArtifactStore(place).mark()
    except ArtifactStoreUnavailableError as error:
        raise MiiiiSearchError(f"cannot keep artifacts in {place}: {error}") from None
    except OSError as error:
        raise MiiiiSearchError(f"cannot keep artifacts in {place}: {error.strerror}") from None


def check_store(place: str | None) -> None:
    """Make sure that artifacts can be looked for where a study keeps them.

    Raises `MiiiiSearchError`; None is the database.
    """
    if place is None:
        return
    try:
        RemoteArtifactStore(place).check()
    except ArtifactStoreUnavailableError as error:
        raise MiiiiSearchError(f"cannot look for the study's artifacts in {place}: {error}") from None


@cache
def open_store(place: str) -> ArtifactStore:
    """The store at a place, as Optuna's with checked names. Raises `MiiiiSearchError` where boto3 is missing."""
    return RemoteArtifactStore(place)


class RemoteArtifactStore:
    """Optuna's `ArtifactStore` protocol on a folder or a bucket. Whatever goes wrong raises
    `ArtifactStoreUnavailableError`.
    """

    def __init__(self, place: str) -> None:
        self._prefix = ""
        self._folder: Path | None = None
        self._store: Any
        if place.startswith("file:"):
            self._folder = _folder(place)
            self._store = FileSystemArtifactStore(self._folder)
            return
        url = urlsplit(place)
        self._prefix = f"{url.path.strip('/')}/".lstrip("/")
        self._store = Boto3ArtifactStore(url.netloc, _s3_client(), avoid_buf_copy=True)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The artifact's bytes. Raises `ArtifactNotFound`, `ArtifactStoreUnavailableError`."""

        def read() -> bytes:
            with self._store.open_reader(self._prefix + artifact_id) as reader:
                return bytes(reader.read())

        return io.BytesIO(self._attempt(artifact_id, read))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Stores the bytes. Raises `ArtifactStoreUnavailableError`, also for a folder where nothing is mounted."""

        def write() -> None:
            if self._folder is not None:
                self.check()
            self._store.write(self._prefix + artifact_id, content_body)

        self._attempt(artifact_id, write)

    def remove(self, artifact_id: str) -> None:
        """Deletes the bytes. Raises `ArtifactNotFound` (of a folder), `ArtifactStoreUnavailableError`."""
        self._attempt(artifact_id, lambda: self._store.remove(self._prefix + artifact_id))

    def mark(self) -> None:
        """Leave the file by which the place is known again. Raises `ArtifactStoreUnavailableError`."""
        self._translated(lambda: self._store.write(self._prefix + MARKER, io.BytesIO(b"")))

    def check(self) -> None:
        """Make sure that this is the place, so that what is not in it is nowhere.

        Raises `ArtifactStoreUnavailableError`.

        A place that an older version used has no marker; there, other artifacts are the sign.
        """
        if not self._translated(self._is_known):
            raise ArtifactStoreUnavailableError(
                f"it has neither artifacts nor the file {MARKER}: is the right place mounted there?"
            )

    def _is_known(self) -> bool:
        if self._folder is not None:
            with os.scandir(self._folder) as entries:
                return any(entry.name == MARKER or ID.fullmatch(entry.name) for entry in entries)
        client, bucket = self._store.client, self._store.bucket
        return bool(client.list_objects_v2(Bucket=bucket, Prefix=self._prefix, MaxKeys=1).get("KeyCount"))

    def _attempt(self, artifact_id: str, action: Callable[[], Any]) -> Any:
        if not ID.fullmatch(artifact_id):
            raise ArtifactNotFound(f"there is no artifact {artifact_id}")
        return self._translated(action)

    def _translated(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except ArtifactNotFound:
            self.check()
            raise
        except ArtifactStoreUnavailableError:
            raise
        except OSError as error:
            raise ArtifactStoreUnavailableError(error.strerror or hide_passwords(driver_message(error))) from error
        except Exception as error:  # boto3's exceptions have no common base
            raise ArtifactStoreUnavailableError(hide_passwords(driver_message(error))) from error


def remove_artifacts(place: str | None, artifact_ids: Iterable[str]) -> None:
    """Deletes the bytes of artifacts whose links are gone, where they do not lie in the database.

    Raises `MiiiiSearchError` if the place is down: what is left there then, nothing points to.
    """
    if place is None:
        return
    check_store(place)
    store = open_store(place)
    for artifact_id in artifact_ids:
        try:
            store.remove(artifact_id)
        except ArtifactNotFound:
            continue
        except ArtifactStoreUnavailableError as error:
            raise MiiiiSearchError(
                f"the database has forgotten them, but artifacts are left in {place}: {error}"
            ) from None


class CombinedArtifactStore:
    """For the dashboard: the artifacts of all studies of a database, wherever each study keeps them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._inside = DatabaseArtifactStore(database)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The artifact's bytes.

        Raises `ArtifactNotFound`, or `ArtifactStoreUnavailableError` if it may be in a place that is down.
        """
        reader: BinaryIO = self._find(lambda store: store.open_reader(artifact_id), artifact_id)
        return reader

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Stores what a visitor uploads, in the database: of which study it is to be is not told."""
        self._inside.write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Deletes the bytes, where they are. Raises like `open_reader`."""

        def remove(store: ArtifactStore) -> None:
            store.open_reader(artifact_id).close()  # S3 removes what is not there, and says nothing
            store.remove(artifact_id)

        self._find(remove, artifact_id)

    def _find(self, use: Callable[[ArtifactStore], Any], artifact_id: str) -> Any:
        down: Exception | None = None
        try:
            return use(self._inside)
        except ArtifactNotFound:
            pass
        for place in self._places():
            try:
                return use(open_store(place))
            except ArtifactNotFound:
                continue
            except (ArtifactStoreUnavailableError, MiiiiSearchError) as error:
                down = ArtifactStoreUnavailableError(f"{place}: {error}")
        raise down or ArtifactNotFound(f"there is no artifact {artifact_id}")

    def _places(self) -> list[str]:
        attributes = schema.study_system_attributes
        query = sa.select(attributes.c.value_json).where(attributes.c.key == ARTIFACT_STORE_KEY).distinct()
        with self._database.engine.connect() as connection:
            return sorted(parse_store_url(json.loads(text)) for text in connection.execute(query).scalars())


def _folder(place: str) -> Path:
    return Path(unquote(urlsplit(place).path))


def _s3_client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise MiiiiSearchError("artifacts in S3 need boto3; pip install 'miiii-search[s3]'") from None
    retries: Any = {"total_max_attempts": TRIES}
    return boto3.client(
        "s3", config=Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)
    )
