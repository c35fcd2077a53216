"""Artifact stores outside of the study's database: a folder that all machines share, or an S3 bucket.

The URL of the store is an attribute of the study, so a worker needs nothing but the storage's URL. Credentials for
S3 are stored nowhere. The library boto3 finds them in variables such as AWS_ACCESS_KEY_ID, in a profile, or in a role.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from miiii_search.errors import MiiiiSearchError
from miiii_search.redaction import hide_passwords
from miiii_search.storage.retry import driver_message

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 30, 3
"""Time limits and attempts of a request to S3.

A store that does not answer delays the end of a trial by at most two minutes. The trial then has no artifacts.
"""

ARTIFACT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Form of the ids that Optuna and this package give to artifacts.

No other id is looked up outside of the database, so that no id can name a file outside of the store's folder.
"""

MARKER = ".miiii-search"
"""Name of the file that is written to a store when it is first used.

A folder with neither this file nor artifacts may be a mount point where nothing is mounted. An artifact that is
missing there may still exist.
"""


class ArtifactStoreUnavailableError(MiiiiSearchError):
    """An artifact store that does not answer or refuses access."""


def parse_store_url(text: str) -> str:
    """Normalize the URL of an artifact store.

    Args:
        text: An absolute path, `file:///FOLDER` or `s3://BUCKET/PREFIX`.

    Returns:
        `file:///FOLDER` or `s3://BUCKET/PREFIX`; the same text for every spelling of a URL.

    Raises:
        MiiiiSearchError: The text is of another form or contains credentials.
    """
    if text.startswith("/"):
        return Path(os.path.normpath(text)).as_uri()
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("")
    has_only_path = not (url.query or url.fragment)
    if url.scheme == "file" and not url.netloc and url.path.startswith("/") and has_only_path:
        return Path(os.path.normpath(unquote(url.path))).as_uri()
    if url.scheme == "s3" and "@" in url.netloc:
        raise MiiiiSearchError(
            "the artifact store's URL must have no credentials; boto3 finds them in AWS_ACCESS_KEY_ID and the like"
        )
    if url.scheme == "s3" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", url.netloc) and has_only_path:
        return f"s3://{url.netloc}{url.path.rstrip('/')}"
    raise MiiiiSearchError("the artifact store must be a folder's absolute path, file:///FOLDER or s3://BUCKET/PREFIX")


def prepare_store(store_url: str) -> None:
    """Create the folder of a store if it does not exist, and write the marker file to the store.

    Args:
        store_url: A URL from `parse_store_url`.

    Raises:
        MiiiiSearchError: The store cannot be written.
    """
    try:
        if store_url.startswith("file:"):
            _folder(store_url).mkdir(parents=True, exist_ok=True)
        RemoteArtifactStore(store_url).write_marker()
    except ArtifactStoreUnavailableError as error:
        raise MiiiiSearchError(f"cannot keep artifacts in {store_url}: {error}") from None
    except OSError as error:
        raise MiiiiSearchError(f"cannot keep artifacts in {store_url}: {error.strerror}") from None


def check_store(store_url: str | None) -> None:
    """Check that a study's artifacts can be read from its store.

    Args:
        store_url: A URL from `parse_store_url`, or None if the database holds the artifacts.

    Raises:
        MiiiiSearchError: The store is unavailable.
    """
    if store_url is None:
        return
    try:
        RemoteArtifactStore(store_url).check()
    except ArtifactStoreUnavailableError as error:
        raise MiiiiSearchError(f"cannot look for the study's artifacts in {store_url}: {error}") from None


@cache
def open_store(store_url: str) -> ArtifactStore:
    """Return the artifact store of a URL. The same object is returned each time.

    Args:
        store_url: A URL from `parse_store_url`.

    Raises:
        MiiiiSearchError: The store is in S3 and boto3 is not installed.
    """
    return RemoteArtifactStore(store_url)


def remove_artifacts(store_url: str | None, artifact_ids: Iterable[str]) -> None:
    """Delete artifacts outside of the database, after the links to them were deleted.

    Args:
        store_url: A URL from `parse_store_url`, or None if the database holds the artifacts; then nothing is done.
        artifact_ids: Ids of the artifacts. Those that do not exist are skipped.

    Raises:
        MiiiiSearchError: The store is unavailable. Artifacts may remain there without a link to them.
    """
    if store_url is None:
        return
    check_store(store_url)
    store = open_store(store_url)
    for artifact_id in artifact_ids:
        try:
            store.remove(artifact_id)
        except ArtifactNotFound:
            continue
        except ArtifactStoreUnavailableError as error:
            raise MiiiiSearchError(
                f"the database no longer links them, but artifacts are left in {store_url}: {error}"
            ) from None


class RemoteArtifactStore:
    """Optuna's `ArtifactStore` protocol for a folder or an S3 bucket, with checked ids.

    Every failure raises `ArtifactStoreUnavailableError`, except for artifacts that do not exist.

    Args:
        store_url: A URL from `parse_store_url`.
    """

    def __init__(self, store_url: str) -> None:
        self._prefix = ""
        self._folder: Path | None = None
        self._store: Any
        if store_url.startswith("file:"):
            self._folder = _folder(store_url)
            self._store = FileSystemArtifactStore(self._folder)
            return
        url = urlsplit(store_url)
        self._prefix = f"{url.path.strip('/')}/".lstrip("/")
        self._store = Boto3ArtifactStore(url.netloc, _s3_client(), avoid_buf_copy=True)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Return the bytes of an artifact as a file.

        Raises:
            ArtifactNotFound: The store has no such artifact.
            ArtifactStoreUnavailableError: The store does not answer, or nothing is mounted in its folder.
        """

        def read() -> bytes:
            with self._store.open_reader(self._prefix + artifact_id) as reader:
                return bytes(reader.read())

        return io.BytesIO(self._call(artifact_id, read))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store the bytes of an artifact.

        Raises:
            ArtifactStoreUnavailableError: The store does not answer, or nothing is mounted in its folder.
        """

        def write() -> None:
            if self._folder is not None:
                self.check()
            self._store.write(self._prefix + artifact_id, content_body)

        self._call(artifact_id, write)

    def remove(self, artifact_id: str) -> None:
        """Delete the bytes of an artifact.

        Raises:
            ArtifactNotFound: The folder has no such artifact. S3 does not report this.
            ArtifactStoreUnavailableError: The store does not answer, or nothing is mounted in its folder.
        """
        self._call(artifact_id, lambda: self._store.remove(self._prefix + artifact_id))

    def write_marker(self) -> None:
        """Write the file by which `check` recognizes the store.

        Raises:
            ArtifactStoreUnavailableError: The store cannot be written.
        """
        self._translate_errors(lambda: self._store.write(self._prefix + MARKER, io.BytesIO(b"")))

    def check(self) -> None:
        """Check that this is the store, so that an artifact that is missing here does not exist.

        A store that an older version used has no marker file. There, other artifacts are sufficient.

        Raises:
            ArtifactStoreUnavailableError: The store does not answer, or has neither a marker file nor artifacts.
        """
        if not self._translate_errors(self._is_known):
            raise ArtifactStoreUnavailableError(
                f"it has neither artifacts nor the file {MARKER}: is the right disk mounted there?"
            )

    def _is_known(self) -> bool:
        if self._folder is not None:
            with os.scandir(self._folder) as entries:
                return any(entry.name == MARKER or ARTIFACT_ID.fullmatch(entry.name) for entry in entries)
        client, bucket = self._store.client, self._store.bucket
        return bool(client.list_objects_v2(Bucket=bucket, Prefix=self._prefix, MaxKeys=1).get("KeyCount"))

    def _call(self, artifact_id: str, action: Callable[[], Any]) -> Any:
        if not ARTIFACT_ID.fullmatch(artifact_id):
            raise ArtifactNotFound(f"there is no artifact {artifact_id}")
        return self._translate_errors(action)

    def _translate_errors(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except ArtifactNotFound:
            self.check()
            raise
        except ArtifactStoreUnavailableError:
            raise
        except OSError as error:
            raise ArtifactStoreUnavailableError(error.strerror or hide_passwords(driver_message(error))) from error
        except Exception as error:  # boto3's exceptions have no common base class
            raise ArtifactStoreUnavailableError(hide_passwords(driver_message(error))) from error


def _folder(store_url: str) -> Path:
    return Path(unquote(urlsplit(store_url).path))


def _s3_client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise MiiiiSearchError("artifacts in S3 need boto3; pip install 'miiii-search[s3]'") from None
    retries: Any = {"total_max_attempts": ATTEMPTS}
    return boto3.client(
        "s3", config=Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)
    )
