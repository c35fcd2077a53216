"""The name of a worker, in the dashboard, in `status` and on every trial that it trains."""

from __future__ import annotations

import hashlib
import os
import re
import socket

from miiii_search.errors import MiiiiSearchError

LONGEST_NAME = 100

_CONTAINER_ID = re.compile(r"[0-9a-f]{12}")
"""What Docker and Podman name a container's host unless they are told otherwise."""


def worker_name(name: str | None, role: str | None) -> str:
    """A name that a person recognises and that no other process has.

    It begins with `name`, or else the host's name. In a container, whose host has an id for a name, it begins with
    that of the machine in the database role that `invite` made, or with `worker`. The process id follows; a name
    that is not the host's is followed by a digest of that first, since processes of two containers have the same ids.
    Raises `MiiiiSearchError` for a name that is too long or not printable.
    """
    host, process = socket.gethostname(), os.getpid()
    if name and not (len(name) <= LONGEST_NAME and name.isprintable() and name.strip() == name):
        raise MiiiiSearchError(
            f"a worker's name must have at most {LONGEST_NAME} printable characters and no space at its ends, "
            f"but is {name[:150]!r}; choose another --name"
        )
    if not name and not _CONTAINER_ID.fullmatch(host):
        return f"{host}:{process}"
    chosen = name or (role or "").removeprefix("worker_") or "worker"
    digest = hashlib.sha256(host.encode()).hexdigest()[:6]
    return f"{chosen}:{digest}:{process}"
