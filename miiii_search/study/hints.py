"""Commands that a user is told to type: quoted for a shell, with the storage that is meant, without its password."""

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
"""The storage of a command that is not told of another one."""


def program() -> str:
    """Returns how this program is started from here, as words of a shell: as the user just did, where that is known."""
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
    """Returns a command of ours as a shell takes it.

    With a `database` it names that storage, unless the command would find it by itself: it is the default one, or
    the environment names it.
    """
    parts = [program(), *(shlex.quote(str(word)) for word in words)]
    if database is not None:
        parts += _storage_option(database.url)
    return " ".join(parts)


def file_argument(path: Path) -> str:
    """Returns a file's name such that a command cannot take it for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def hides_password(database: Database) -> bool:
    """Whether a hint refers to the variable MIIII_STORAGE, since the storage's URL has a password."""
    return _storage_option(database.url) == [VARIABLE]


VARIABLE = '--storage "$MIIII_STORAGE"'


def _storage_option(url: URL) -> list[str]:
    from miiii_search.storage.urls import redact_url

    if _named_by_environment(url) or (not _environment() and url == _parsed(DEFAULT_STORAGE)):
        return []
    shown = redact_url(url)
    if _parsed(shown) != url:
        return [VARIABLE]
    return [f"--storage {shlex.quote(shown)}"]


def _environment() -> str | None:
    """The storage that the environment names."""
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
