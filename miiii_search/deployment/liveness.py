"""A sign of life: a file whose age a healthcheck looks at."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

BEAT_SECONDS = 1.0


class Liveness:
    """Touches a file when called, at most once a second; without a file, does nothing."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if self._file is not None and now >= self._next:
            self._next = now + BEAT_SECONDS
            with contextlib.suppress(OSError):  # a full disk is told of elsewhere
                self._file.touch()
