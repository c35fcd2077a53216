"""The studies of a storage: creating, opening, listing and deleting them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from miiii_search.api.study import Study
from miiii_search.config.presets import PRESETS
from miiii_search.config.study_spec import StudySpec
from miiii_search.storage.artifact_stores import parse_store_url, prepare_store
from miiii_search.storage.database import open_database
from miiii_search.study import create, names
from miiii_search.study import delete as deletion
from miiii_search.study import open as opening

presets: Mapping[str, StudySpec] = {name: preset.spec for name, preset in PRESETS.items()}
"""The study specifications that come with the package, by name."""


def create_study(
    storage: str,
    spec: StudySpec,
    *,
    name: str,
    artifacts: str | None = None,
) -> Study:
    """Create a study with its queue of trials, or open it if it exists with the same specification.

    Args:
        storage: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`. A missing SQLite file is created.
        spec: The specification: experiment, search space, sampler, pruner and budget. `presets` has some.
        name: The study's name.
        artifacts: Folder or `s3://BUCKET/PREFIX` for records, figures and weights. By default the database.

    Returns:
        The open study.

    Raises:
        DuplicateStudyError: A study of this name has another specification.
        MiiiiSearchError: The storage cannot be opened or written.

    Example:
        >>> import miiii_search as ms
        >>> study = ms.create_study("sqlite:///new.db", ms.presets["demo"], name="demo")
        >>> study.spec.n_trials
        12
        >>> study.close()
    """
    database = open_database(storage, create=True)
    try:
        store_url = parse_store_url(artifacts) if artifacts else None
        if store_url:
            prepare_store(store_url)
        return Study(create.create_study(database, name, spec, store_url))
    except BaseException:
        database.close()
        raise


def load_study(storage: str, name: str | None = None) -> Study:
    """Open a study. Workers may train it at the same time.

    Args:
        storage: URL of the storage, as for `create_study`.
        name: The study's name. Optional if the storage holds only one study.

    Returns:
        The open study.

    Raises:
        StudyNotFoundError: There is no such study.
        MiiiiSearchError: The storage cannot be opened.

    Example:
        >>> import miiii_search as ms
        >>> with ms.load_study("sqlite:///search.db", "search") as study:
        ...     study.counts
        {'waiting': 0, 'running': 0, 'complete': 2, 'pruned': 0, 'fail': 0}
    """
    database = open_database(storage)
    try:
        return Study(opening.open_study(database, name))
    except BaseException:
        database.close()
        raise


def list_studies(storage: str) -> list[str]:
    """Return the names of the studies in a storage.

    Args:
        storage: URL of the storage, as for `create_study`.

    Returns:
        The names in alphabetical order.

    Raises:
        MiiiiSearchError: The storage cannot be opened.

    Example:
        >>> import miiii_search as ms
        >>> ms.list_studies("sqlite:///search.db")
        ['search']
    """
    database = open_database(storage)
    try:
        return sorted(names.study_names(database))
    finally:
        database.close()


def delete_study(storage: str, name: str, *, force: bool = False) -> None:
    """Delete a study with all of its trials and artifacts.

    Args:
        storage: URL of the storage, as for `create_study`.
        name: The study's name.
        force: Whether to delete the study even while workers train it.

    Raises:
        StudyNotFoundError: There is no such study.
        MiiiiSearchError: A worker trains the study, or its artifacts cannot be reached.

    Example:
        >>> import miiii_search as ms
        >>> ms.create_study("sqlite:///old.db", ms.presets["demo"], name="old").close()
        >>> ms.delete_study("sqlite:///old.db", "old")
        >>> ms.list_studies("sqlite:///old.db")
        []
    """
    with contextlib.closing(load_study(storage, name)) as study:
        deletion.delete(study._study, force=force)
