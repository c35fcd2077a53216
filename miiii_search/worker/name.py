"""The name of a worker, as the dashboard, `status` and its trials show it."""

from __future__ import annotations

import hashlib
import os
import re
import socket

from miiii_search.errors import MiiiiSearchError

MAX_NAME_LENGTH = 100
"""Longest name that a user may give a worker, in characters."""

_CONTAINER_ID = re.compile(r"[0-9a-f]{12}")
"""Host name that Docker and Podman give a container by default."""


def worker_name(name: str | None, role: str | None) -> str:
    """Return a name that a person recognizes and that no other process has.

    The name starts with `name` or the host's name, and ends with the process id. In a container, the host's name is a
    random id. The machine's name from the database role replaces it there, or `worker`. Any name but the host's is
    followed by a digest of the host's name, because processes of different containers have the same process ids.

    Args:
        name: Name that the user chose; None or empty if there is none.
        role: Database role of the worker. `invite` names it `worker_MACHINE`.

    Raises:
        MiiiiSearchError: The name is too long or not printable.
    """
    host, process = socket.gethostname(), os.getpid()
    if name and not (len(name) <= MAX_NAME_LENGTH and name.isprintable() and name.strip() == name):
        raise MiiiiSearchError(
            f"a worker's name must have at most {MAX_NAME_LENGTH} printable characters and no space at its ends, "
            f"but is {name[:150]!r}; choose another --name"
        )
    if not name and not _CONTAINER_ID.fullmatch(host):
        return f"{host}:{process}"
    chosen = name or (role or "").removeprefix("worker_") or "worker"
    digest = hashlib.sha256(host.encode()).hexdigest()[:6]
    return f"{chosen}:{digest}:{process}"
