"""Atomic file writes, and valid file names."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NAME_LIMIT = 255
"""Maximum length of a file name in bytes, on all common file systems."""


@contextmanager
def replace_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends, and is deleted if the block raises.

    Until then `path` is unchanged, so that no reader ever sees half a file. Symbolic links are followed. Pipes and
    devices such as /dev/stdout are written directly.

    Args:
        path: The file to write.
        private: Whether only the owner may read the file. Otherwise an existing file keeps its owner and permissions.

    Yields:
        The temporary file, open for writing.

    Raises:
        OSError: The file cannot be written, or the disk is full.
    """
    found = _stat_replaceable(path)
    if (found is not None and not stat.S_ISREG(found.st_mode)) or _is_descriptor(path):
        with path.open("wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    unfinished = _temporary_path(target)
    opener = functools.partial(os.open, mode=0o600 if private else 0o666)
    try:
        with open(unfinished, "xb", opener=opener) as file:
            if found is not None and not private:
                with suppress(OSError):  # not every file system has owners and permissions
                    os.fchown(file.fileno(), found.st_uid, found.st_gid)
                with suppress(OSError):
                    os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())  # some file systems report a full disk only here
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def write_file(path: Path, data: bytes | str, *, private: bool = False) -> None:
    """Write a file atomically, as `replace_file` does.

    Args:
        path: The file to write.
        data: Its content. Text is encoded as UTF-8.
        private: Whether only the owner may read the file.

    Raises:
        OSError: The file cannot be written, or the disk is full.
    """
    with replace_file(path, private=private) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def check_writable(path: Path) -> None:
    """Check that `replace_file` could write `path` now. Nothing is left behind.

    Raises:
        OSError: The file could not be written.
    """
    found = _stat_replaceable(path)
    if found is None or stat.S_ISREG(found.st_mode):
        probe = _temporary_path(Path(os.path.realpath(path)))
        try:
            probe.write_bytes(b"x")  # one byte, since even a full disk creates empty files
        finally:
            probe.unlink(missing_ok=True)


def file_name(stem: str, suffix: str = "") -> str:
    """Return a valid file name that begins with `stem`, such as a study's name, and ends with `suffix`.

    Slashes become underscores. A name that is too long is cut, and a hash of `stem` keeps it distinct.
    """
    name = stem.replace("/", "_") + suffix
    if name in (".", ".."):  # existing folders
        return name.replace(".", "_")
    if len(name.encode()) <= NAME_LIMIT:
        return name
    end = f"-{hashlib.sha256(stem.encode()).hexdigest()[:8]}{suffix}"
    return name.encode()[: NAME_LIMIT - len(end.encode())].decode(errors="ignore") + end


def _temporary_path(path: Path) -> Path:
    """Return a new name in the folder of `path`. It begins with the name of `path`, so that leftovers are recognized.

    A killed process may leave such a file behind.
    """
    end = f".{secrets.token_hex(6)}.tmp"
    return path.with_name(path.name.encode(errors="replace")[: NAME_LIMIT - len(end)].decode(errors="ignore") + end)


def _stat_replaceable(path: Path) -> os.stat_result | None:
    """Return the status of the file at `path`, or None if there is none.

    Raises:
        OSError: The path is a folder, or a file that this user may not write.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return found


def _is_descriptor(path: Path) -> bool:
    """Return whether the path names an open file of this process, which must not be replaced by renaming."""
    absolute = os.path.abspath(path)
    return absolute.startswith(("/dev/fd/", "/proc/")) or absolute in ("/dev/stdout", "/dev/stderr")
