"""SQLite files: whether a file may be written, how to open one that may not, and on which file system it lies."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

MOUNTS = Path("/proc/self/mountinfo")
"""Linux lists the mounted file systems here."""

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs"),
        *("pvfs2", "orangefs", "davfs", "ncpfs", "coda", "vboxsf", "prl_fs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.davfs", "fuse.rclone", "fuse.s3fs"),
        *("fuse.gcsfuse", "fuse.mount-s3", "fuse.juicefs", "fuse.beegfs", "fuse.smbnetfs", "fuse.grpcfuse"),
    }
)
"""Types of file systems whose locks and shared memory do not reach every machine.

SQLite's write-ahead log needs both.
"""

NETWORK_ADVICE = "SQLite may lose or damage it there: use a local disk, or PostgreSQL for several machines"


def is_writable(path: Path) -> bool:
    """Return whether this process may write the file and the two files of SQLite's write-ahead log next to it."""
    log_files = [path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-shm")]
    may_write_log = os.access(path.parent, os.W_OK | os.X_OK) or all(os.access(file, os.W_OK) for file in log_files)
    return os.access(path, os.W_OK) and may_write_log


def connect_read_only(path: Path, timeout: float) -> sqlite3.Connection:
    """Open a file that may only be read, including everything that was committed to its write-ahead log.

    Even for reading, SQLite needs two more files next to a file in WAL mode. If they cannot be created and there is no
    log, no process writes the file, and it is opened as immutable. If there is a log, its index is built in memory.

    Args:
        path: The file.
        timeout: Seconds to wait for a lock.

    Raises:
        sqlite3.OperationalError: The file cannot be opened.
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
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # keeps the log's index in memory
    return connection


def network_file_system(path: Path, mounts: Path | None = None) -> str | None:
    """Return the type of the network file system on which a path lies, such as `nfs4`.

    Args:
        path: A path, which need not exist.
        mounts: File that lists the mounted file systems; `MOUNTS` by default.

    Returns:
        The type, or None if the file system is local or unknown.
    """
    try:
        lines = (mounts or MOUNTS).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real_path, found, longest = Path(os.path.realpath(path)), "", -1
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount_point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]))
        # Of two mounts at the same point, the later one hides the other.
        if real_path.is_relative_to(mount_point) and len(mount_point.parts) >= longest:
            found, longest = rest.split()[0], len(mount_point.parts)
    return found if found in NETWORK_FILE_SYSTEMS else None


def _open(path: Path, options: str, timeout: float) -> sqlite3.Connection:
    # check_same_thread: SQLAlchemy passes a connection from thread to thread, and uses it in one at a time.
    address = f"file:{quote(os.path.abspath(path))}?{options}"
    return sqlite3.connect(address, uri=True, timeout=timeout, check_same_thread=False)
