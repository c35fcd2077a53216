"""Liveness files: a container's healthcheck looks at the age of a file that the process touches."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

INTERVAL_SECONDS = 1.0


class Liveness:
    """Callable that touches a file, at most once a second. Does nothing without a file."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._next = 0.0

    def __call__(self) -> None:
        """Touch the file if the last time was a second ago."""
        now = time.monotonic()
        if self._file is not None and now >= self._next:
            self._next = now + INTERVAL_SECONDS
            with contextlib.suppress(OSError):  # a full disk is reported elsewhere
                self._file.touch()
