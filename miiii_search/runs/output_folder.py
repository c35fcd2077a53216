"""A folder of results that one process writes at a time, and that changes all at once.

A command writes into a hidden folder within it. What is whole there is moved into place at the end, which needs no
space. A process may be killed at any moment: readers find the old files or the new ones, never some of each.
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
"""Locked by the process that writes the folder; the operating system unlocks it when that process ends."""

UNFINISHED, READY = ".miiii-search.unfinished", ".miiii-search.ready"
"""What is being written, and what is whole and only has to be moved into place."""

REPLACED = ".replaced"


def newest_path(folder: Path, name: str) -> Path:
    """Returns where the newest whole version of a file or a folder of results lies."""
    ready = folder / READY / name
    return ready if ready.exists() else folder / name


class OutputFolder:
    """A folder that this process alone may write. Made by `open_output`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unfinished = path / UNFINISHED
        """Where to write. Files keep their names; a folder of snapshots may be among them."""

    def publish(self) -> None:
        """Moves everything that was written into place.

        A file takes the place of the one with its name. A folder takes the place of the snapshots in the one before
        it; other files there are kept.

        Raises:
            OSError: A file cannot be moved. Readers see the new results all the same, and the next owner goes on.
        """
        self.unfinished.rename(self.path / READY)
        _move_into_place(self.path)


@contextmanager
def open_output(folder: Path, check: Callable[[Path], None] = lambda folder: None) -> Iterator[OutputFolder]:
    """Makes a folder and holds it until the block ends. What was not published then is removed.

    `check` looks at the folder before anything is written, and raises `MiiiiSearchError` if its files are somebody
    else's.

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
            with suppress(OSError):  # unless there is something in it
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with output_errors(folder):
        descriptor = _lock(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """The open file that holds the lock. Raises `OSError`, and `MiiiiSearchError` if another process has it."""
    while True:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(descriptor, 200).decode(errors="replace").strip()
                raise MiiiiSearchError(
                    f"{folder} is being written by {owner or 'another process'}; wait until that has ended, "
                    "or choose another --out"
                ) from None
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise  # a file system without locks is no reason not to train
            with suppress(FileNotFoundError):
                # The owner before this one may have removed the file between the two calls above.
                if os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK)):
                    os.truncate(descriptor, 0)
                    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _move_into_place(folder: Path) -> None:
    """Moves what is ready, and goes on where another process was killed. Raises `OSError`."""
    ready = folder / READY
    if not ready.is_dir():
        return
    places = []
    for new in sorted(ready.iterdir()):
        place = folder / new.name
        if new.name.endswith(REPLACED):
            continue
        if not new.is_dir():
            new.replace(place)
            continue
        if os.path.lexists(place):
            place.rename(ready / (new.name + REPLACED))
        new.rename(place)
        places.append(place)
    for old in ready.iterdir():
        _remove_snapshots(old, folder / old.name.removesuffix(REPLACED))
    for place in places:
        with suppress(OSError):  # unless it has files: a short run has no snapshots
            place.rmdir()
    ready.rmdir()


def _remove_snapshots(old: Path, new: Path) -> None:
    """Removes a folder of snapshots that was replaced; what else is in it moves to the new one."""
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
