"""Writing a study into an archive."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.artifacts.exceptions import ArtifactNotFound

from miiii_search.errors import MiiiiSearchError
from miiii_search.files import replace_file
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, open_store
from miiii_search.storage.study_reader import StudyReader
from miiii_search.study.archive import ArchiveWriter
from miiii_search.study.study import Study


@dataclass(frozen=True)
class ExportResult:
    """An archive that was written."""

    size: int
    """Size in bytes."""
    missing: tuple[str, ...]
    """Ids of artifacts that trials link to but that no store has. The archive lacks them."""


def export_study(study: Study, path: Path) -> ExportResult:
    """Write a study into a file, as it is at one moment.

    Running trials are written as waiting, with their newest checkpoint in the database.

    Args:
        study: The study.
        path: The file. An existing file is replaced.

    Raises:
        MiiiiSearchError: The file cannot be written, or the artifact store is not available.
    """
    try:
        with (
            replace_file(path) as file,
            study.store.snapshot() as reader,
            zipfile.ZipFile(file, "w") as archive,
        ):
            missing = _write(reader, study, ArchiveWriter(archive))
        return ExportResult(path.stat().st_size, missing)
    except OSError as error:
        raise MiiiiSearchError(f"cannot write {path}: {error.strerror}; choose another file") from None


def _write(reader: StudyReader, study: Study, writer: ArchiveWriter) -> tuple[str, ...]:
    """Write all members of the archive; return the ids of missing artifacts."""
    tree: dict[str, Any] = {"name": study.name, **reader.read_rows()}
    tree["artifacts"], missing = _write_artifacts(reader, study, writer)
    tree["checkpoints"] = _write_checkpoints(reader, writer)
    writer.add_study(tree)
    writer.write_manifest()
    return tuple(missing)


def _write_artifacts(
    reader: StudyReader, study: Study, writer: ArchiveWriter
) -> tuple[list[dict[str, str]], list[str]]:
    """Write the study's artifacts; return their entries in study.json, and the ids of those that no store has."""
    entries, missing = list[dict[str, str]](), list[str]()
    for artifact_id in reader.linked_artifact_ids():
        data = reader.read_artifact(artifact_id)
        if data is None and study.artifact_store_url is not None:
            data = _read_from_store(study.artifact_store_url, artifact_id)
        if data is None:
            missing.append(artifact_id)
        else:
            entries.append({"artifact_id": artifact_id, "file": writer.add_file(data)})
    return entries, missing


def _write_checkpoints(reader: StudyReader, writer: ArchiveWriter) -> list[dict[str, Any]]:
    """Write the trials' checkpoints; return their entries in study.json."""
    entries = list[dict[str, Any]]()
    for stored in reader.read_checkpoints():  # one at a time, since memory may not hold all of them
        file = writer.add_file(reader.read_checkpoint_data(stored.trial_id))
        entries.append({"trial_id": stored.trial_id, "epoch": stored.epoch, "file": file})
    return entries


def _read_from_store(store_url: str, artifact_id: str) -> bytes | None:
    """Return an artifact from a store outside of the database; None if the store does not have it.

    Raises:
        MiiiiSearchError: The store is not available.
    """
    try:
        with open_store(store_url).open_reader(artifact_id) as reader:
            return bytes(reader.read())
    except ArtifactNotFound:
        return None
    except ArtifactStoreUnavailableError as error:
        raise MiiiiSearchError(
            f"cannot read artifacts of the study from {store_url}: {error}; is it reachable?"
        ) from None
