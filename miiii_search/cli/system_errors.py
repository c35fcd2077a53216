"""Advice for errors of databases, file systems, memory and installations.

Such an error becomes one line that says what to do. Any other error is a bug of this program and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys

from miiii_search.capabilities import TRAINING, explain_missing

SPACE_ADVICE = "free some space there, and run the command again"
PERMISSION_ADVICE = "change its permissions, or run this command as its owner"
DISK_ADVICE = "the disk or the connection to it fails: see the system's log"
OPEN_FILES_ADVICE = "too many files are open: raise the limit, as with ulimit -n 4096"

FILE_SYSTEM_ADVICE = {
    errno.ENOSPC: SPACE_ADVICE,
    errno.EDQUOT: SPACE_ADVICE,
    errno.EFBIG: SPACE_ADVICE,
    errno.EACCES: PERMISSION_ADVICE,
    errno.EPERM: PERMISSION_ADVICE,
    errno.EROFS: "it is read-only: choose another place",
    errno.ENOENT: "does its folder exist?",
    errno.ENOTDIR: "a part of its path is a file: choose another place",
    errno.EISDIR: "it is a folder: choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links form a circle: choose another place",
    errno.EIO: DISK_ADVICE,
    errno.ESTALE: DISK_ADVICE,
    errno.ENOTCONN: DISK_ADVICE,
    errno.EMFILE: OPEN_FILES_ADVICE,
    errno.ENFILE: OPEN_FILES_ADVICE,
}
"""Advice by the number of an `OSError`. Other numbers may indicate a bug of this program."""

DEVICE_MEMORY = "RESOURCE_EXHAUSTED"
"""Status that XLA reports if a device or the machine is out of memory."""

NO_THREAD = "can't start new thread"
"""Python's whole message if the system refuses a further thread to a process."""


def explain(error: Exception) -> str | None:
    """Return one line with advice about an error, or None if it may be a bug of this program."""
    if isinstance(error, MemoryError) or (type(error).__name__ == "JaxRuntimeError" and DEVICE_MEMORY in str(error)):
        return "out of memory: end other programs, train fewer --lanes at a time, or make the experiment smaller"
    if isinstance(error, RuntimeError) and NO_THREAD in str(error):
        return f"{NO_THREAD}: raise the limit of processes (ulimit -u, a container's pids limit) or of memory"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] in TRAINING:
        return explain_missing("this command", [error.name])
    if isinstance(error, OSError):
        return _explain_file_error(error)
    if "miiii_search.storage.retry" not in sys.modules:
        return None
    from miiii_search.cli.resolve import opened_storages
    from miiii_search.storage import error_advice

    return error_advice.explain(error, opened_storages[-1] if opened_storages else "the storage")


def _explain_file_error(error: OSError) -> str | None:
    if error.errno == errno.ENOMEM:
        return "out of memory: end other programs"
    advice = FILE_SYSTEM_ADVICE.get(error.errno or 0)
    if advice is None or (error.filename is None and error.errno == errno.ENOENT):
        return None
    what = f"cannot use {error.filename}" if error.filename is not None else "cannot use a file"
    return f"{what}: {error.strerror}; {advice}"
