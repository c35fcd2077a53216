"""Names of studies: which ones a database holds, and which ones are allowed."""

from __future__ import annotations

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.database import Database

MAX_CHARACTERS = 200


def study_names(database: Database) -> list[str]:
    """Return the names of all studies in the database, sorted by the database."""
    return database.studies.names()


def check_name(name: str) -> None:
    """Check that a name fits into one line of a terminal.

    Raises:
        MiiiiSearchError: The name is empty, longer than 200 characters, or has control characters.
    """
    if not name or len(name) > MAX_CHARACTERS or not name.isprintable():
        raise MiiiiSearchError(
            f"a study's name must have 1 to {MAX_CHARACTERS} characters and no control characters, "
            f"but is {name[:250]!r}; choose another one with --study"
        )


def check_not_deleted(database: Database, name: str) -> None:
    """Check that the study was not deleted, or that it was created again since.

    Raises:
        StudyDeletedError: A study of this name was deleted.
    """
    if error := database.studies.deletion_error(name):
        raise error
