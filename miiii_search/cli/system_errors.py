"""Errors that are neither the user's mistakes nor ours: of databases, file systems, memory and installations.

Each becomes one line with what to do. A mistake of ours keeps its traceback.
"""

from __future__ import annotations

import errno
import sys

from miiii_search.capabilities import TRAINING, explain_missing

ROOM = "make room there, and run the command again"
RIGHTS = "change its permissions, or run this as its owner"
DISK = "the disk or the connection to it fails: see the system's log"
FILES = "too many files are open: raise the limit, as with ulimit -n 4096"

FILE_SYSTEM = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: ROOM,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: "it may only be read: choose another place",
    errno.ENOENT: "does its folder exist?",
    errno.ENOTDIR: "a part of it is a file: choose another place",
    errno.EISDIR: "it is a folder: choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: choose another place",
    errno.EIO: DISK,
    errno.ESTALE: DISK,
    errno.ENOTCONN: DISK,
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
}
"""What to do, by the number of an `OSError`. Others may be mistakes of ours."""

DEVICE_MEMORY = "RESOURCE_EXHAUSTED"
"""The status with which XLA says that a device or the machine has no memory left."""

NO_THREAD = "can't start new thread"
"""What Python says, and nothing more, where the system gives a process no further thread."""


def explain(error: Exception) -> str | None:
    """One line about an error, with what to do; None for what may be a mistake of ours."""
    if isinstance(error, MemoryError) or (type(error).__name__ == "JaxRuntimeError" and DEVICE_MEMORY in str(error)):
        return "out of memory: end other programs, train fewer --lanes at once, or make the experiment smaller"
    if isinstance(error, RuntimeError) and NO_THREAD in str(error):
        return f"{NO_THREAD}: raise the limit of processes (ulimit -u, a container's pids limit) or of memory"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] in TRAINING:
        return explain_missing("this command", [error.name])
    if isinstance(error, OSError):
        return _explain_file(error)
    if "sqlalchemy" not in sys.modules:
        return None
    from miiii_search.cli.resolve import opened
    from miiii_search.storage import error_advice

    return error_advice.explain(error, opened[-1] if opened else "the storage")


def _explain_file(error: OSError) -> str | None:
    if error.errno == errno.ENOMEM:
        return "out of memory: end other programs"
    advice = FILE_SYSTEM.get(error.errno or 0)
    if advice is None or (error.filename is None and error.errno == errno.ENOENT):
        return None
    what = f"cannot use {error.filename}" if error.filename is not None else "cannot use a file"
    return f"{what}: {error.strerror}; {advice}"
