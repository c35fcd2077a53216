"""Folders that commands write to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from miiii_search.errors import UserError

WrittenT = TypeVar("WrittenT")


def prepare(out: Path) -> None:
    """Makes the folder and tries to write to it, before anything that takes long. Raises `UserError`."""

    def make() -> None:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass

    writing(out, make)


def writing(out: Path, write: Callable[[], WrittenT]) -> WrittenT:
    """What `write` returns. Raises `UserError` if the system refuses what it does in `out`."""
    try:
        return write()
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
