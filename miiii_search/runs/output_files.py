"""Files and folders that commands write to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from miiii_search.errors import MiiiiSearchError
from miiii_search.files import check_writable

WrittenT = TypeVar("WrittenT")


def prepare_output_file(out: Path) -> None:
    """Makes the folder of a file and tries to write there, before anything that takes long.

    Raises `MiiiiSearchError`.
    """

    def make() -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        check_writable(out)

    writing(out, make)


def writing(out: Path, write: Callable[[], WrittenT]) -> WrittenT:
    """Returns what `write` returns. Raises `MiiiiSearchError` if the system refuses what it does in `out`."""
    try:
        return write()
    except OSError as error:
        raise MiiiiSearchError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
