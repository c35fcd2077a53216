"""A whole study on this box: the coordinator in this process, a worker and the dashboard beside it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from miiii_search.coordinator.coordinator import supervise
from miiii_search.errors import WorkerDiedError
from miiii_search.study.study import Study

worker_logger = logging.getLogger("miiii_search.worker")
"""Passes on the lines of the worker's process."""

DRAIN_SECONDS = 30
"""How long children may take to hand back their trials before they are killed."""


PLAIN = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
"""Environment of a child, for lines as we read them."""


class Child:
    """A command of ours in a process of its own, whose lines go to `logger`.

    It gets the storage through its environment, since command lines are visible to everyone on the machine. It
    is a session of its own, so that Ctrl-C reaches it once, from us; and it watches its standard input, so that
    it ends when we are gone.
    """

    def __init__(self, storage: str, arguments: list[str], logger: logging.Logger) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "miiii_search", *arguments, "--with-parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",  # libraries write to the pipe, too
            start_new_session=True,
            env={**os.environ, **PLAIN, "MIIII_STORAGE": storage},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(logger,), daemon=True)
        self._reader.start()

    def _read(self, logger: logging.Logger) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines = [*self.lines[-50:], line.rstrip()]
            logger.info(line.rstrip())

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Asks it to end, and sees to it that it does."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


def run_study(
    study: Study,
    storage: str,
    *,
    lanes: int | None,
    stop: threading.Event,
    on_poll: Callable[[], object],
) -> bool:
    """Coordinates a study and trains it with one worker; True once it is done, False if stopped.

    Raises `WorkerDiedError` with its last line.
    """
    arguments = ["work", "--study", study.name, *(["--lanes", str(lanes)] if lanes else [])]
    with Child(storage, arguments, worker_logger) as worker:

        def check() -> None:
            # 0 is a worker that found the study done before we did.
            if worker.exit_code() not in (None, 0):
                last = next((line for line in reversed(worker.lines) if line), "it said nothing")
                raise WorkerDiedError(f"the worker ended with exit code {worker.exit_code()}: {last}")
            on_poll()

        return supervise(study, stop, check)
