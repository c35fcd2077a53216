"""The file format of an exported study: a zip archive of JSON, artifacts and checkpoints.

Members::

    manifest.json   the format, and size and SHA-256 of each other member
    study.json      the rows of the study and its trials, from Optuna's tables and from ours
    files/N         the bytes of an artifact or a checkpoint that study.json refers to

Reading an archive executes nothing in it, and turns none of its names into a path. The trial ids in it are those of the
exporting database. An import assigns new ones.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from typing import Any

from miiii_search.storage.archive_rows import ArchiveError
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES

FORMAT = 1
MANIFEST, STUDY = "manifest.json", "study.json"

MAX_MANIFEST_BYTES = 2**26
MAX_JSON_BYTES = 2**30
"""Maximum size of study.json. A study of 5,000 trials needs about 30 MB."""
MAX_FILE_BYTES = max(MAX_ARTIFACT_BYTES, 2**28)
"""Maximum size of an artifact or a checkpoint. The largest checkpoint of the paper's networks has 19 MB."""


@dataclass
class ArchiveWriter:
    """Writes the members of an archive. `write_manifest` must be the last call."""

    archive: zipfile.ZipFile
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Size in bytes and SHA-256 of each member so far, by name."""

    def add_file(self, data: bytes) -> str:
        """Add an artifact or a checkpoint without compression, since both are compressed already.

        Returns:
            The name of the new member.
        """
        name = f"files/{len(self.members)}"
        self._add(name, data, zipfile.ZIP_STORED)
        return name

    def add_study(self, tree: dict[str, Any]) -> None:
        """Add study.json."""
        self._add(STUDY, json.dumps(tree, allow_nan=False).encode(), zipfile.ZIP_DEFLATED)

    def write_manifest(self) -> None:
        """Add the manifest of the members so far."""
        manifest = {"format": FORMAT, "members": self.members}
        self._add(MANIFEST, json.dumps(manifest).encode(), zipfile.ZIP_DEFLATED)

    def _add(self, name: str, data: bytes, compression: int) -> None:
        self.archive.writestr(name, data, compression)
        self.members[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@dataclass
class ArchiveReader:
    """Reads the members of an archive, and checks them against the manifest.

    The methods raise `ArchiveError`, and whatever else reading a damaged zip or JSON file raises.
    """

    archive: zipfile.ZipFile
    members: dict[str, Any] = field(init=False)
    """Size in bytes and SHA-256 of each member by name, as the manifest has them."""

    def __post_init__(self) -> None:
        """Read the manifest."""
        manifest = json.loads(self._read(MANIFEST, MAX_MANIFEST_BYTES))
        if manifest["format"] != FORMAT:
            raise ArchiveError(f"it has format {manifest['format']!r}, this version of miiii-search reads {FORMAT}")
        self.members = dict(manifest["members"])

    def read_file(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Return the bytes of a member.

        Args:
            name: Name of the member.
            limit: Maximum size in bytes.

        Raises:
            ArchiveError: The member is too large, or size or checksum differ from the manifest.
        """
        expected = self.members[name]
        data = self._read(name, limit)
        if len(data) != expected["size"] or hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise ArchiveError(f"the checksum of {name} is not the one in the manifest")
        return data

    def read_study(self) -> dict[str, Any]:
        """Return study.json."""
        return dict(json.loads(self.read_file(STUDY, MAX_JSON_BYTES)))

    def _read(self, name: str, limit: int) -> bytes:
        with self.archive.open(name) as member:
            data = member.read(limit + 1)  # not the size that the archive claims, which may be wrong
        if len(data) > limit:
            raise ArchiveError(f"{name} has more than {limit:,} bytes")
        return data
