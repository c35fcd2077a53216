"""Failpoints: named places in the code at which a test can stop, delay or kill a process.

They are off unless `MIIII_FAILPOINTS` names a folder when the process starts. Then `reach` looks for a file with the
failpoint's name in that folder. The first word of the file is what happens:

- `pause`: the thread waits until the file is gone; with `pause N`, only from the Nth time on;
- `delay SECONDS`: the thread sleeps;
- `kill`: the process kills itself with SIGKILL;
- `pass`: nothing.

Before that, the id of the process is appended to the file `NAME.reached`, so that a test knows the moment.
`testing/failpoints.py` is the tests' side.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Literal

Name = Literal[
    "chunk",
    "compile",
    "checkpoint-saved",
    "result-ready",
    "result-written",
    "result-committed",
    "drain",
    "hand-back",
    "hand-back-written",
]
"""Names of the failpoints, which CONTRIBUTING.md explains."""

POLL_SECONDS = 0.01

folder: Path | None = Path(os.environ["MIIII_FAILPOINTS"]) if os.environ.get("MIIII_FAILPOINTS") else None
"""Folder of the files that arm failpoints; None if there are no failpoints."""


def reach(name: Name) -> None:
    """Do what the file of this failpoint says. Do nothing if it has none, or if failpoints are off."""
    if folder is not None:
        _act(folder / name)


def _act(armed: Path) -> None:
    words = _read(armed)
    if not words:
        return
    with armed.with_name(f"{armed.name}.reached").open("a+") as announcements:
        announcements.write(f"{os.getpid()}\n")
        announcements.seek(0)
        count = len(announcements.readlines())
    if words[0] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif words[0] == "delay":
        time.sleep(float(words[1]))
    elif words[0] == "pause":
        while (words := _read(armed)) and count >= int(words[1] if len(words) > 1 else "1"):
            time.sleep(POLL_SECONDS)


def _read(armed: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return armed.read_text().split()
    return []
