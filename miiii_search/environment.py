"""The environment of a process: the variables `MIIII_*`, the files that they name, and the user's folders."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import MutableMapping
from pathlib import Path

from miiii_search.errors import MiiiiSearchError

PREFIX = "MIIII_"

LISTS = ("MIIII_SET",)
"""Variables that hold several values, separated by spaces, line breaks or tabs."""

PASSWORDS = ("MIIII_DASHBOARD_PASSWORD",)
"""Variables whose leading and trailing spaces belong to the value."""

LINE_ENDS = "\r\n"


def clean_variables(environment: MutableMapping[str, str] = os.environ) -> None:
    """Strip the values of all variables `MIIII_*`.

    Args:
        environment: The variables. They are changed in place.

    Raises:
        MiiiiSearchError: A value contains a control character.
    """
    for name in [name for name in environment if name.startswith(PREFIX)]:
        value = " ".join(environment[name].split()) if name in LISTS else environment[name]
        environment[name] = clean_value(value, name, LINE_ENDS if name in PASSWORDS else None)


def clean_value(value: str, source: str, characters: str | None = None) -> str:
    """Return a value without the given leading and trailing characters, and without a byte order mark.

    Args:
        value: The value.
        source: The name of its variable, option or file, for the error message.
        characters: The characters to strip. White space by default.

    Raises:
        MiiiiSearchError: The value contains a control character. Such a character is invisible, and the value would
            silently name another file or study. The message does not show the value, since it may be a password.
    """
    stripped = value.removeprefix("\ufeff").strip(characters)
    for position, character in enumerate(stripped, start=1):
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise MiiiiSearchError(
                f"{source} has a control character, {character!r}, at position {position}: remove it"
            )
    return stripped


def read_value(path: Path, variable: str, characters: str | None = None) -> str:
    """Return the value in a file that a variable names, cleaned by `clean_value`.

    Args:
        path: The file.
        variable: The variable that names it, for the error message.
        characters: The characters to strip. White space by default.

    Raises:
        OSError: The file cannot be read.
        MiiiiSearchError: The file is not UTF-8, or its value contains a control character.
    """
    try:
        return clean_value(path.read_text(encoding="utf-8"), f"the file {path} of {variable}", characters)
    except UnicodeDecodeError:
        raise MiiiiSearchError(f"the file {path} of {variable} cannot be read (not UTF-8): write it again") from None


def state_folder() -> Path:
    """Return the folder for data that must outlive a process, such as checkpoints.

    Raises:
        MiiiiSearchError: The user has no home folder, and `XDG_STATE_HOME` names no folder.
    """
    if (folder := _user_folder("XDG_STATE_HOME", ".local/state")) is None:
        raise MiiiiSearchError(
            "this user has no home folder, where running trials would be saved: name a folder with XDG_STATE_HOME, or "
            "with work --checkpoints"
        )
    return folder


def cache_folder() -> Path | None:
    """Return the folder for data that can be computed again.

    Returns:
        The folder, or None if the user has no home folder and `XDG_CACHE_HOME` names no folder.
    """
    return _user_folder("XDG_CACHE_HOME", ".cache")


def _user_folder(variable: str, default: str) -> Path | None:
    """Return our folder below the one that an XDG variable names. Relative paths are ignored, as XDG specifies."""
    if os.path.isabs(named := os.environ.get(variable, "")):
        return Path(named) / "miiii-search"
    home = os.path.expanduser("~")  # returns "~" for a user who is not in the password database
    return Path(home) / default / "miiii-search" if os.path.isabs(home) else None
