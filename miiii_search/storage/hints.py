"""Commands that messages suggest to the user: quoted for a shell, with the storage but without its password."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from miiii_search.errors import MiiiiSearchError

if TYPE_CHECKING:
    from sqlalchemy import URL

    from miiii_search.storage.database import Database

PROGRAM = "miiii-search"

DEFAULT_STORAGE = "sqlite:///miiii-search.db"
"""Storage of a command if neither an option nor the environment names one."""


VARIABLE = '--storage "$MIIII_STORAGE"'
"""Option that names a storage whose URL has a password."""


def program() -> str:
    """Return the words that start this program in a shell, as the user typed them if that is known."""
    typed = sys.argv[0]
    if os.path.basename(typed) == "__main__.py":
        on_path = shutil.which("python")
        is_ours = on_path is not None and os.path.realpath(on_path) == os.path.realpath(sys.executable)
        return f"{'python' if is_ours else shlex.quote(sys.executable)} -m miiii_search"
    if os.path.basename(typed) != PROGRAM:
        return PROGRAM
    on_path = shutil.which(PROGRAM)
    is_ours = on_path is not None and os.path.realpath(on_path) == os.path.realpath(typed)
    return PROGRAM if is_ours else shlex.quote(typed)


def hint(*words: str | Path, database: Database | None = None) -> str:
    """Return a command of this program, quoted for a shell.

    Args:
        *words: The command and its arguments.
        database: Storage that the command should use. It is left out if the command uses it anyway, because it is
            the default or the environment names it.
    """
    parts = [program(), *(shlex.quote(str(word)) for word in words)]
    if database is not None:
        parts += _storage_option(database.url)
    return " ".join(parts)


def file_argument(path: Path) -> str:
    """Return a file's name in a form that a command cannot mistake for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def hides_password(database: Database) -> bool:
    """Return whether hints refer to the variable MIIII_STORAGE, because the storage's URL has a password."""
    return _storage_option(database.url) == [VARIABLE]


def _storage_option(url: URL) -> list[str]:
    from miiii_search.storage.urls import redact_url

    if _named_by_environment(url) or (not _environment() and url == _parsed(DEFAULT_STORAGE)):
        return []
    shown = redact_url(url)
    if _parsed(shown) != url:
        return [VARIABLE]
    return [f"--storage {shlex.quote(shown)}"]


def _environment() -> str | None:
    """Return the URL of the storage that the environment names, if any."""
    if text := os.environ.get("MIIII_STORAGE"):
        return text
    if not (path := os.environ.get("MIIII_STORAGE_FILE")):
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _named_by_environment(url: URL) -> bool:
    text = _environment()
    return text is not None and _parsed(text) == url


def _parsed(text: str) -> URL | None:
    from miiii_search.storage.urls import parse_url

    try:
        return parse_url(text)
    except MiiiiSearchError:
        return None
