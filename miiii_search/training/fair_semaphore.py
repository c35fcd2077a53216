"""Turns at something that only so many threads may do at once."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairSemaphore:
    """A semaphore as a context manager, first come, first served.

    `threading.Semaphore` lets a thread that has just left in again before those that wait, so that of many lanes on
    two cores two would train and the others starve.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # the place is handed over, not freed
            else:
                self._free += 1
