"""What the environment says: the variables `MIIII_*`, files that they name, and the user's folders."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import MutableMapping
from pathlib import Path

from miiii_search.errors import MiiiiSearchError

PREFIX = "MIIII_"

LISTS = ("MIIII_SET",)
"""Variables with several values. Line breaks and tabs separate them, as spaces do."""

PASSWORDS = ("MIIII_DASHBOARD_PASSWORD",)
"""Variables of which spaces are a part."""

LINE_ENDS = "\r\n"


def clean_variables(environment: MutableMapping[str, str] = os.environ) -> None:
    """Strip the values of all variables `MIIII_*`. Raises `MiiiiSearchError` for a control character in one of them."""
    for name in [name for name in environment if name.startswith(PREFIX)]:
        value = " ".join(environment[name].split()) if name in LISTS else environment[name]
        environment[name] = clean_value(value, name, LINE_ENDS if name in PASSWORDS else None)


def clean_value(value: str, source: str, around: str | None = None) -> str:
    """Return the value without the characters `around` it, white space by default.

    Raises `MiiiiSearchError` for a control character, which nobody sees and which names another file or another
    study. The value is not shown: it may be a password.
    """
    stripped = value.removeprefix("\ufeff").strip(around)
    for place, character in enumerate(stripped, start=1):
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise MiiiiSearchError(f"{source} has a control character, {character!r}, at position {place}: remove it")
    return stripped


def read_value(path: Path, variable: str, around: str | None = None) -> str:
    """Return the one value in a file that a variable names, as `clean` does.

    Raises `OSError` if the file cannot be read, and `MiiiiSearchError` for what is no such value.
    """
    try:
        return clean_value(path.read_text(encoding="utf-8"), f"the file {path} of {variable}", around)
    except UnicodeDecodeError:
        raise MiiiiSearchError(f"the file {path} of {variable} cannot be read (not UTF-8): write it again") from None


def state_folder() -> Path:
    """Return where data that outlive a process lie on this machine.

    Raises `MiiiiSearchError` for a user without a home folder who names none.
    """
    if (folder := _user_folder("XDG_STATE_HOME", ".local/state")) is None:
        raise MiiiiSearchError(
            "this user has no home folder, where running trials would be saved: name a folder with XDG_STATE_HOME, or "
            "with work --checkpoints"
        )
    return folder


def cache_folder() -> Path | None:
    """Return where files lie that can be made again, or None for a user without a home folder who names none."""
    return _user_folder("XDG_CACHE_HOME", ".cache")


def _user_folder(variable: str, default: str) -> Path | None:
    """Our folder within the one that a variable names; the specification says to ignore a relative one."""
    if os.path.isabs(named := os.environ.get(variable, "")):
        return Path(named) / "miiii-search"
    home = os.path.expanduser("~")  # stays as it is for a user whom the system does not know
    return Path(home) / default / "miiii-search" if os.path.isabs(home) else None
