"""Trials as the analyses take them, and what came out of it attached to them: long after they have ended."""

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
from miiii_search.errors import MiiiiSearchError
from miiii_search.runs.run_folder import assemble_run
from miiii_search.storage import study_attrs
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, open_store, remove_artifacts
from miiii_search.storage.artifacts import (
    MAX_ARTIFACT_BYTES,
    STUDY_ARTIFACT_PREFIX,
    TRIAL_ARTIFACT_PREFIX,
    Artifact,
    artifact_link,
    delete_attachments,
    find_attachments,
    write_bytes,
)
from miiii_search.storage.combined_artifact_store import CombinedArtifactStore
from miiii_search.study.export import Configuration, export_trial
from miiii_search.study.hints import hint
from miiii_search.study.snapshots import read_snapshots
from miiii_search.study.study import Study
from miiii_search.study.trials import METRICS_KEY


def find_finished_trial(study: Study, number: int) -> FrozenTrial:
    """The trial of this number. Raises `MiiiiSearchError` if there is none, or if it has not ended."""
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
    """What the trial trained; with its metrics unless it failed."""
    if METRICS_KEY in trial.user_attrs:
        return export_trial(study, trial)
    return Configuration(*study.trial_settings(trial), metrics=None, provenance={})


def read_trial_run(study: Study, trial: FrozenTrial, snapshots: Path | None = None) -> tuple[TrainedRun, list[str]]:
    """What is kept of a trial that has ended, and a line about each file that cannot be read.

    `snapshots` is the folder of `work --snapshots`, if this machine has it.
    """
    places = CombinedArtifactStore(study.database)
    names = {
        meta["filename"]: meta["artifact_id"]
        for key, value in trial.system_attrs.items()
        if key.startswith(TRIAL_ARTIFACT_PREFIX)
        if (meta := json.loads(value)) is not None  # what a visitor of the dashboard removed
    }

    def fetch(filename: str) -> bytes | None:
        if filename not in names:
            return None
        try:
            with places.open_reader(names[filename]) as reader:
                return reader.read()
        except ArtifactNotFound:
            return None
        except ArtifactStoreUnavailableError as error:
            raise MiiiiSearchError(f"cannot read {filename} of trial {trial.number}: {error}") from None

    found, lines = read_snapshots(snapshots, study, trial) if snapshots else ({}, [])
    run, problems = assemble_run(f"{study.name} {trial.number}", trial_configuration(study, trial), fetch, found)
    return run, [*problems, *lines]


def attach_artifacts(study: Study, trial: FrozenTrial, files: Sequence[Artifact]) -> None:
    """Puts files onto the page of a trial that has ended, in place of those that an earlier call put there.

    Optuna lets nobody add to an ended trial; the dashboard also looks for a trial's artifacts in an attribute of the
    study. Raises `MiiiiSearchError` if a file is too large for a database, if the place of the study's artifacts is
    down, or if somebody deleted the study; none of it is left behind then.
    """
    by_id = {str(uuid.uuid4()): file for file in files}
    _upload(study, by_id)
    try:
        with study.database.transaction() as connection:
            study.lock(connection)
            old = find_attachments(connection, study.study_id, [trial._trial_id])
            delete_attachments(connection, study.study_id, old)
            if study.artifact_store_url is None:
                for artifact_id, file in by_id.items():
                    write_bytes(connection, artifact_id, file.data)
            prefix = f"{STUDY_ARTIFACT_PREFIX}{trial._trial_id}:"
            new = {
                prefix + artifact_id: artifact_link(artifact_id, file.filename)[1]
                for artifact_id, file in by_id.items()
            }
            study_attrs.write(connection, study.study_id, new)
    except MiiiiSearchError:  # of anything else it is not known whether the files are pointed to by now
        with suppress(MiiiiSearchError):
            remove_artifacts(study.artifact_store_url, by_id)
        raise
    remove_artifacts(study.artifact_store_url, [file.artifact_id for file in old])


def _upload(study: Study, by_id: Mapping[str, Artifact]) -> None:
    """Writes files to where the study keeps them, if that is not the database, in which they are refused if too large.

    Before anything points to them. Raises `MiiiiSearchError`, with nothing left behind as far as the place allows.
    """
    if study.artifact_store_url is None:
        for file in by_id.values():
            if len(file.data) > MAX_ARTIFACT_BYTES:
                size, limit = (f"{n / 2**20:.0f} MiB" for n in (len(file.data), MAX_ARTIFACT_BYTES))
                raise MiiiiSearchError(f"{file.filename} has {size}, an artifact in a database {limit} at most")
        return
    store = open_store(study.artifact_store_url)
    try:
        for artifact_id, file in by_id.items():
            store.write(artifact_id, io.BytesIO(file.data))
    except ArtifactStoreUnavailableError as error:
        with suppress(MiiiiSearchError):
            remove_artifacts(study.artifact_store_url, by_id)
        raise MiiiiSearchError(f"cannot keep figures in {study.artifact_store_url}: {error}") from None
