"""Files that are written whole or not at all, and their names."""

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
"""Bytes of a file's name on all common file systems."""


@contextmanager
def replace_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Opens a new file that takes the place of `path` once the block ends, and vanishes if the block fails.

    Until then `path` is as it was. The new file keeps the permissions of the old one; a `private` file can be read by
    its owner alone. Symbolic links are followed. Pipes and devices such as /dev/stdout are written directly.

    Raises:
        OSError: The file cannot be written, or the disk is full.
    """
    found = _stat(path)
    if (found is not None and not stat.S_ISREG(found.st_mode)) or _is_descriptor(path):
        with path.open("wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    unfinished = _beside(target)
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
            os.fsync(file.fileno())  # some file systems notice only now that they are full
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def write_file(path: Path, data: bytes | str, *, private: bool = False) -> None:
    """Writes a file as `replace_file` does; text as UTF-8."""
    with replace_file(path, private=private) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def check_writable(path: Path) -> None:
    """Finds out whether `replace_file` can write `path`, and leaves everything as it is.

    Raises:
        OSError: It cannot.
    """
    found = _stat(path)
    if found is None or stat.S_ISREG(found.st_mode):
        probe = _beside(Path(os.path.realpath(path)))
        try:
            probe.write_bytes(b"x")  # a full disk still creates empty files
        finally:
            probe.unlink(missing_ok=True)


def file_name(stem: str, suffix: str = "") -> str:
    """A valid file name that begins with `stem`, such as a study's name, and ends with `suffix`.

    Slashes become underscores. A name that is too long is cut, and a hash keeps it apart from others.
    """
    name = stem.replace("/", "_") + suffix
    if name in (".", ".."):  # folders that are there already
        return name.replace(".", "_")
    if len(name.encode()) <= NAME_LIMIT:
        return name
    end = f"-{hashlib.sha256(stem.encode()).hexdigest()[:8]}{suffix}"
    return name.encode()[: NAME_LIMIT - len(end.encode())].decode(errors="ignore") + end


def _beside(path: Path) -> Path:
    """A new file that shows, should it be left behind by a killed process, what it was to become."""
    end = f".{secrets.token_hex(6)}.tmp"
    return path.with_name(path.name.encode(errors="replace")[: NAME_LIMIT - len(end)].decode(errors="ignore") + end)


def _stat(path: Path) -> os.stat_result | None:
    """The file at `path`, or None if there is none. Raises `OSError` if it is one that may not be replaced."""
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
    """Whether the path names an open file of this process, which nothing may be renamed over."""
    absolute = os.path.abspath(path)
    return absolute.startswith(("/dev/fd/", "/proc/")) or absolute in ("/dev/stdout", "/dev/stderr")
