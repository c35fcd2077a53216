"""Folders of weight snapshots: `work --snapshots DIR` writes `DIR/STUDY-ID/trial-N/epoch-M.npz`."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from optuna.trial import FrozenTrial

from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.record import find_snapshots
from miiii_search.files import write_file
from miiii_search.study.study import Study

ID_DIGITS = 12
"""Number of digits of the study's id in the name of its folder, few enough to be readable."""

DATABASE = ".database"
"""File in a study's folder that names its database. A copied database has studies with the same ids as the original,
which may train other trials under the same numbers."""


def study_folder(folder: Path, study: Study) -> Path:
    """Return the study's folder below `folder`. Characters of its name that a path may not have are replaced."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", study.name)[:60].lstrip(".")
    return folder / f"{name}-{study.identity[:ID_DIGITS]}"


def trial_folder(folder: Path, study: Study, number: int) -> Path:
    """Return the folder of the snapshots of the trial with this number."""
    return study_folder(folder, study) / f"trial-{number}"


def check_database(folder: Path, study: Study) -> None:
    """Check that the study's snapshots below `folder` belong to its database, not to a copy of it.

    Raises:
        MiiiiSearchError: They belong to another database.
    """
    path = study_folder(folder, study) / DATABASE
    with suppress(FileNotFoundError):
        if path.read_text().strip() != study.database.instance_id():
            raise MiiiiSearchError(
                f"the snapshots in {path.parent} belong to another database than {study.database}; one may be a copy "
                f"of the other: give another --snapshots, or, if the database was moved, remove {path}"
            )


def claim_folder(folder: Path, study: Study) -> None:
    """Create the study's folder, and write into it which database it belongs to.

    Raises:
        MiiiiSearchError: The folder belongs to another database.
        OSError: The folder cannot be written.
    """
    check_database(folder, study)
    own = study_folder(folder, study)
    own.mkdir(parents=True, exist_ok=True)
    write_file(own / DATABASE, f"{study.database.instance_id()}\n")


def read_snapshots(folder: Path, study: Study, trial: FrozenTrial) -> tuple[dict[int, Path], list[str]]:
    """Find the snapshots of a trial. An imported study also finds those from before its export.

    Returns:
        The files by epoch, and messages about snapshots that may belong to the trial but cannot be used.
    """
    try:
        check_database(folder, study)
    except MiiiiSearchError as error:
        return {}, [str(error)]
    if found := find_snapshots(trial_folder(folder, study, trial.number)):
        return found, []
    for origin, exported_at in study.origins:
        if trial.datetime_complete is not None and trial.datetime_complete.timestamp() <= exported_at:
            for path in folder.glob(f"*-{origin[:ID_DIGITS]}"):
                if found := find_snapshots(path / f"trial-{trial.number}"):
                    return found, []
    if find_snapshots(folder / f"trial-{trial.number}"):
        expected = trial_folder(folder, study, trial.number)
        return {}, [
            f"{folder / expected.name} was written by an older version, which did not record the study: if it belongs "
            f"to `{study.name}`, move it to {expected}"
        ]
    return {}, []
