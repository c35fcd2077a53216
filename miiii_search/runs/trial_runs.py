"""The runs of a study's trials, and artifacts that are attached to trials after they have ended."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial

from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.errors import MiiiiSearchError, StudyDeletedError
from miiii_search.runs.run_folder import assemble_run
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, open_store, remove_artifacts
from miiii_search.storage.artifacts import (
    MAX_ARTIFACT_BYTES,
    STUDY_ARTIFACT_PREFIX,
    TRIAL_ARTIFACT_PREFIX,
    Artifact,
    artifact_link,
)
from miiii_search.storage.combined_artifact_store import CombinedArtifactStore
from miiii_search.storage.hints import hint
from miiii_search.storage.trial_attrs import METRICS_KEY
from miiii_search.study.export import Configuration, export_trial
from miiii_search.study.snapshots import read_snapshots
from miiii_search.study.study import Study


def find_finished_trial(study: Study, number: int) -> FrozenTrial:
    """Return the trial with a number.

    Raises:
        MiiiiSearchError: There is no such trial, or it has not ended.
    """
    trial = study.read_trial(number)
    if trial is None:
        n = sum(study.counts().values())
        there = f"its trials are 0 to {n - 1}" if n else "it has none yet"
        raise MiiiiSearchError(f"study `{study.name}` has no trial {number}; {there}")
    if not trial.state.is_finished():
        raise MiiiiSearchError(
            f"trial {number} of study `{study.name}` is {trial.state.name.lower()}; only trials that have ended are "
            f"analyzed: see {hint('status', '--study', study.name, database=study.database)}"
        )
    return trial


def trial_configuration(study: Study, trial: FrozenTrial) -> Configuration:
    """Return what a trial trained, with its metrics unless it failed."""
    if METRICS_KEY in trial.user_attrs:
        return export_trial(study, trial)
    return Configuration(*study.trial_settings(trial), metrics=None, provenance={})


def read_trial_run(study: Study, trial: FrozenTrial, snapshots: Path | None = None) -> tuple[TrainedRun, list[str]]:
    """Read the run of a trial that has ended from the study's artifacts.

    Args:
        study: The study.
        trial: The trial.
        snapshots: The folder given to `work --snapshots`, if this machine has it.

    Returns:
        The run with all data that can be read, and one message per file that cannot be used.

    Raises:
        MiiiiSearchError: The store of the study's artifacts cannot be reached.
    """
    store = CombinedArtifactStore(study.database)
    names = {
        meta["filename"]: meta["artifact_id"]
        for key, value in trial.system_attrs.items()
        if key.startswith(TRIAL_ARTIFACT_PREFIX)
        if (meta := json.loads(value)) is not None  # None if it was removed in the dashboard
    }

    def read_file(filename: str) -> bytes | None:
        if filename not in names:
            return None
        try:
            with store.open_reader(names[filename]) as reader:
                return reader.read()
        except ArtifactNotFound:
            return None
        except ArtifactStoreUnavailableError as error:
            raise MiiiiSearchError(f"cannot read {filename} of trial {trial.number}: {error}") from None

    found, lines = read_snapshots(snapshots, study, trial) if snapshots else ({}, [])
    run, problems = assemble_run(f"{study.name} {trial.number}", trial_configuration(study, trial), read_file, found)
    return run, [*problems, *lines]


def attach_artifacts(study: Study, trial: FrozenTrial, files: Sequence[Artifact]) -> None:
    """Attach files to a trial that has ended, so that the dashboard shows them on its page.

    They replace the files of an earlier call. Optuna does not allow changes to a finished trial. The links are
    therefore attributes of the study, where the dashboard looks for them, too.

    Args:
        study: The study.
        trial: The trial.
        files: The files.

    Raises:
        MiiiiSearchError: A file is too large for a database, the artifact store cannot be reached, or the study was
            deleted. None of the files is left behind then.
    """
    by_id = {str(uuid.uuid4()): file for file in files}
    _upload(study, by_id)
    try:
        with study.store.transaction() as tx:
            tx.lock()
            old = tx.find_attachments([trial._trial_id])
            tx.delete_attachments(old)
            if study.artifact_store_url is None:
                for artifact_id, file in by_id.items():
                    tx.write_artifact(artifact_id, file.data)
            prefix = f"{STUDY_ARTIFACT_PREFIX}{trial._trial_id}:"
            new = {
                prefix + artifact_id: artifact_link(artifact_id, file.filename)[1]
                for artifact_id, file in by_id.items()
            }
            tx.write_attributes(new)
    except StudyDeletedError:  # after any other error the links may have been committed, so the files are kept
        with suppress(MiiiiSearchError):
            remove_artifacts(study.artifact_store_url, by_id)
        raise
    remove_artifacts(study.artifact_store_url, [file.artifact_id for file in old])


def _upload(study: Study, by_id: Mapping[str, Artifact]) -> None:
    """Write files to the study's artifact store, before anything links to them.

    If the study keeps artifacts in its database, only their sizes are checked.

    Raises:
        MiiiiSearchError: A file is too large for a database, or the store cannot be reached. Files already written are
            removed if possible.
    """
    if study.artifact_store_url is None:
        for file in by_id.values():
            if len(file.data) > MAX_ARTIFACT_BYTES:
                size, limit = (f"{n / 2**20:.0f} MiB" for n in (len(file.data), MAX_ARTIFACT_BYTES))
                raise MiiiiSearchError(f"{file.filename} has {size}, but an artifact in a database has at most {limit}")
        return
    store = open_store(study.artifact_store_url)
    try:
        for artifact_id, file in by_id.items():
            store.write(artifact_id, io.BytesIO(file.data))
    except ArtifactStoreUnavailableError as error:
        with suppress(MiiiiSearchError):
            remove_artifacts(study.artifact_store_url, by_id)
        raise MiiiiSearchError(f"cannot keep figures in {study.artifact_store_url}: {error}") from None
