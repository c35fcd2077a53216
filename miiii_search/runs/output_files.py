"""Files that commands write to, and errors that occur on writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miiii_search.errors import MiiiiSearchError
from miiii_search.files import check_writable


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system within the block into a message for the user.

    Args:
        path: The file or folder that is written, as the user named it.

    Raises:
        MiiiiSearchError: The block raised `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise MiiiiSearchError(f"cannot write to {path}: {error.strerror}; choose another --out") from None


def prepare_output_file(path: Path) -> None:
    """Create the folder of a file and check that the file can be written, before a long computation.

    Raises:
        MiiiiSearchError: The file cannot be written.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)
