"""A SQLite file on a disk: whether it may be written, how it is read if not, and what file system it lies on."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

MOUNTS = Path("/proc/self/mountinfo")

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs"),
        *("pvfs2", "orangefs", "davfs", "ncpfs", "coda", "vboxsf", "prl_fs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.davfs", "fuse.rclone", "fuse.s3fs"),
        *("fuse.gcsfuse", "fuse.mount-s3", "fuse.juicefs", "fuse.beegfs", "fuse.smbnetfs", "fuse.grpcfuse"),
    }
)
"""Their locks and shared memory do not reach every machine, and SQLite's write-ahead log needs both."""

NETWORK_ADVICE = "SQLite may lose or damage it there: use a local disk, or PostgreSQL for several machines"


def is_writable(path: Path) -> bool:
    """Whether this process may write the file, and the files that SQLite's write-ahead log needs beside it."""
    beside = [path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-shm")]
    has_room = os.access(path.parent, os.W_OK | os.X_OK) or all(os.access(file, os.W_OK) for file in beside)
    return os.access(path, os.W_OK) and has_room


def connect_read_only(path: Path, timeout: float) -> sqlite3.Connection:
    """Open a file that may only be read, with all that was committed to it.

    A file in WAL mode wants two more files beside it, even to be read. If they cannot be made and there is no log,
    nothing writes the file, and it is read as it is. If there is a log, its index is built in memory.
    """
    connection = _open(path, "mode=ro", timeout)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or log.stat().st_size == 0:
        return _open(path, "mode=ro&immutable=1", timeout)
    connection = _open(path, "mode=ro&vfs=unix-none", timeout)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # without locks, this keeps the log's index in memory
    return connection


def network_file_system(path: Path, mounts: Path | None = None) -> str | None:
    """The network file system that a path lies on, such as `nfs4`; None if it is local, or not known."""
    try:
        lines = (mounts or MOUNTS).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place, found, longest = Path(os.path.realpath(path)), "", -1
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]))
        # Of two mounts at the same point, the later one covers the other.
        if place.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = rest.split()[0], len(point.parts)
    return found if found in NETWORK_FILE_SYSTEMS else None


def _open(path: Path, options: str, timeout: float) -> sqlite3.Connection:
    # SQLAlchemy hands a connection from thread to thread, one at a time.
    address = f"file:{quote(os.path.abspath(path))}?{options}"
    return sqlite3.connect(address, uri=True, timeout=timeout, check_same_thread=False)
