"""Where `work --snapshots DIR` keeps weights: `DIR/STUDY-ID/trial-N/epoch-M.npz`, a folder for each study."""

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
"""Of the study's id in the folder's name, which a person should be able to read."""

DATABASE = ".database"
"""The file in a study's folder that names its database. The studies of a copied database have the ids of the
original's, and may train other trials under the same numbers."""


def study_folder(folder: Path, study: Study) -> Path:
    """The study's own folder below `folder`: its name, as far as a path can hold it, and its id."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", study.name)[:60].lstrip(".")
    return folder / f"{name}-{study.identity[:ID_DIGITS]}"


def trial_folder(folder: Path, study: Study, number: int) -> Path:
    """Where the weights of the study's trial `number` lie."""
    return study_folder(folder, study) / f"trial-{number}"


def check_database(folder: Path, study: Study) -> None:
    """Raises `MiiiiSearchError` if the study's snapshots below `folder` are of another database, such as a
    copied one.
    """
    path = study_folder(folder, study) / DATABASE
    with suppress(FileNotFoundError):
        if path.read_text().strip() != study.database.instance_id():
            raise MiiiiSearchError(
                f"the snapshots in {path.parent} are of another database than {study.database}; one may be a copy of "
                f"the other: give another --snapshots, or, if the database was moved, remove {path}"
            )


def claim_folder(folder: Path, study: Study) -> None:
    """Notes in the study's folder which database it is of.

    Raises `MiiiiSearchError` as `check_database`, and `OSError`.
    """
    check_database(folder, study)
    own = study_folder(folder, study)
    own.mkdir(parents=True, exist_ok=True)
    write_file(own / DATABASE, f"{study.database.instance_id()}\n")


def read_snapshots(folder: Path, study: Study, trial: FrozenTrial) -> tuple[dict[int, Path], list[str]]:
    """A trial's snapshots by epoch, and a line if `folder` may hold some that cannot be told apart.

    An imported study also finds what its trials left before they were exported.
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
        place = trial_folder(folder, study, trial.number)
        return {}, [
            f"{folder / place.name} was written by an older version, which does not say of which study: if it is "
            f"of `{study.name}` alone, move it to {place}"
        ]
    return {}, []
