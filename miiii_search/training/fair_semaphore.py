"""A semaphore that serves threads in the order in which they ask."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairSemaphore:
    """A semaphore that is first come, first served. It is used as a context manager.

    `threading.Semaphore` may readmit a thread that has just left before those that wait. Of many lanes on two cores,
    two would then train and the others starve.

    Args:
        value: The number of threads that may hold the semaphore at once.
    """

    def __init__(self, value: int) -> None:
        self._lock = threading.Lock()
        self._free = value
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
                self._waiting.popleft().set()  # passed on to the next thread, so `_free` is unchanged
            else:
                self._free += 1
