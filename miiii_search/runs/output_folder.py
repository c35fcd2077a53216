"""A folder of results that one process writes at a time, and whose content changes all at once.

A command writes into a hidden folder within it. At the end the complete results are moved into place, which needs no
disk space. If a process is killed at any moment, readers find either the old files or the new ones, but no mixture.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.record import SNAPSHOT_FILE
from miiii_search.runs.output_files import output_errors

LOCK = ".miiii-search.lock"
"""File that is locked by the process that writes the folder. The operating system unlocks it when that process ends."""

UNFINISHED, READY = ".miiii-search.unfinished", ".miiii-search.ready"
"""Hidden folders for results that are being written, and for complete results that are yet to be moved into place."""

REPLACED = ".replaced"
"""Suffix of an old folder that has been replaced and is yet to be removed."""


def newest_path(folder: Path, name: str) -> Path:
    """Return the path of the newest complete version of a file or folder of results."""
    ready = folder / READY / name
    return ready if ready.exists() else folder / name


class OutputFolder:
    """A folder that only this process may write. It is created by `open_output`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unfinished = path / UNFINISHED
        """Folder to write to. Files have their final names; one folder of snapshots may be among them."""

    def publish(self) -> None:
        """Move everything that was written into place.

        A file replaces the file of its name. A folder replaces the snapshots in the folder of its name; other files
        there are kept.

        Raises:
            OSError: A file cannot be moved. Readers still find the new results, and the next process completes the
                move.
        """
        self.unfinished.rename(self.path / READY)
        _move_into_place(self.path)


@contextmanager
def open_output(folder: Path, check: Callable[[Path], None] = lambda folder: None) -> Iterator[OutputFolder]:
    """Create a folder and reserve it for this process until the block ends.

    Results that have not been published by then are removed.

    Args:
        folder: The folder.
        check: Called with the folder before anything is written. It raises `MiiiiSearchError` if the folder
            contains files
            that must not be replaced.

    Raises:
        MiiiiSearchError: The folder cannot be written, or another process is writing it.
    """
    is_new = not folder.exists()
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            with output_errors(folder):
                _move_into_place(folder)
                check(folder)
                shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
                (folder / UNFINISHED).mkdir()
            try:
                yield OutputFolder(folder)
            finally:
                shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    finally:
        if is_new:
            with suppress(OSError):  # not empty
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder until the block ends."""
    with output_errors(folder):
        descriptor = _lock(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """Return the file descriptor that holds the lock.

    Raises:
        OSError: The lock file cannot be opened.
        MiiiiSearchError: Another process holds the lock.
    """
    while True:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(descriptor, 200).decode(errors="replace").strip()
                raise MiiiiSearchError(
                    f"{folder} is being written by {owner or 'another process'}; wait until it has ended, "
                    "or choose another --out"
                ) from None
            except OSError as error:
                # A file system without locks is no reason not to write.
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
            with suppress(FileNotFoundError):
                # The previous owner may have removed the file between the two calls above.
                if os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK)):
                    os.truncate(descriptor, 0)
                    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _move_into_place(folder: Path) -> None:
    """Move complete results into place, and complete such a move by a process that was killed.

    Raises:
        OSError: A file cannot be moved.
    """
    ready = folder / READY
    if not ready.is_dir():
        return
    moved = []
    for new in sorted(ready.iterdir()):
        target = folder / new.name
        if new.name.endswith(REPLACED):
            continue
        if not new.is_dir():
            new.replace(target)
            continue
        if os.path.lexists(target):
            target.rename(ready / (new.name + REPLACED))
        new.rename(target)
        moved.append(target)
    for old in ready.iterdir():
        _remove_snapshots(old, folder / old.name.removesuffix(REPLACED))
    for target in moved:
        with suppress(OSError):  # not empty; a short run has no snapshots
            target.rmdir()
    ready.rmdir()


def _remove_snapshots(old: Path, new: Path) -> None:
    """Remove a folder of snapshots that was replaced, and move its other files to the new folder."""
    if old.is_symlink() or not old.is_dir():
        old.unlink()
        return
    for path in old.iterdir():
        if SNAPSHOT_FILE.fullmatch(path.name):
            path.unlink()
        else:
            new.mkdir(exist_ok=True)
            path.rename(new / path.name)
    old.rmdir()
