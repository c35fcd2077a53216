""""""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution

from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES

FORMAT = 1


MANIFEST, STUDY = "manifest.json", "study.json"


JSON_LIMIT = 2**30
"""Bytes of study.json: 5,000 trials have some 30 MB."""


FILE_LIMIT = max(MAX_ARTIFACT_BYTES, 2**28)
"""Bytes of one artifact or checkpoint; the largest of the paper's has 19 MB."""


MANIFEST_LIMIT = 2**26


class ArchiveError(Exception):
    """The file is not what `export_study` writes."""


@dataclass
class ArchiveWriter:
    archive: zipfile.ZipFile
    members: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, data: bytes, compress: int = zipfile.ZIP_STORED) -> None:
        self.archive.writestr(name, data, compress)
        self.members[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def add_file(self, data: bytes) -> str:
        """Under the next name; what is in it is compressed already."""
        name = f"files/{len(self.members)}"
        self.add(name, data)
        return name


def content_columns(table: Any) -> list[Any]:
    """What a row says, apart from ids; of our ledger the holder is one."""
    return [c for c in table.c if not c.primary_key and c.name not in ("study_id", "trial_id")]


def to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return getattr(value, "name", value)  # of an enumeration


@dataclass
class ArchiveReader:
    archive: zipfile.ZipFile
    members: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        manifest = json.loads(self._read(MANIFEST, MANIFEST_LIMIT))
        if manifest["format"] != FORMAT:
            raise ArchiveError(f"it has format {manifest['format']!r}, this version of miiii-search reads {FORMAT}")
        self.members = dict(manifest["members"])

    def data(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        """A member's bytes, as large as the manifest says and with its checksum."""
        known = self.members[name]
        data = self._read(name, limit)
        if len(data) != known["size"] or hashlib.sha256(data).hexdigest() != known["sha256"]:
            raise ArchiveError(f"{name} has another checksum than when it was written")
        return data

    def tree(self, name: str) -> dict[str, Any]:
        """A member that is JSON."""
        return dict(json.loads(self.data(name, JSON_LIMIT)))

    def _read(self, name: str, limit: int) -> bytes:
        with self.archive.open(name) as member:
            data = member.read(limit + 1)  # whatever size the archive claims
        if len(data) > limit:
            raise ArchiveError(f"{name} has more than {limit:,} bytes")
        return data


def from_json(column: Any, value: Any) -> Any:
    """A value of the column's type. Raises `ValueError` or another of `_DAMAGES` for any other."""
    if value is None:
        if not column.nullable:
            raise ArchiveError(f"{column} is missing")
        return None
    if column.name == "value_json":
        json.loads(value)
    elif column.name == "distribution_json":
        json_to_distribution(value)
    kind = column.type
    if isinstance(kind, sa.Enum):
        return kind.enum_class[value] if kind.enum_class else str(value)
    if isinstance(kind, sa.DateTime):
        return datetime.fromisoformat(value)
    expected: Any = int if isinstance(kind, sa.Integer) else (int, float) if isinstance(kind, sa.Float) else str
    if not isinstance(value, expected) or isinstance(value, bool):
        raise ArchiveError(f"{column} must not be {str(value)[:50]!r}")
    return value
