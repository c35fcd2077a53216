"""A whole study on one machine: the coordinator in this process, a worker in a process of its own."""

from __future__ import annotations

import contextlib
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
"""Gets the lines of the worker's process."""

DRAIN_SECONDS = 30
"""Time that a child process may take to return its trials before it is killed, in seconds."""

CHILD_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
"""Environment variables of a child process, for plain lines without delay."""

LINES_KEPT = 50
"""Number of output lines of a child process that are kept, for the message if it fails."""


class ChildProcess:
    """A command of this program in a process of its own. A context manager that ends the process.

    The process gets the storage from its environment, because command lines are visible to every user of the machine.
    It runs in a session of its own, so that Ctrl-C reaches it only once, from this process. It watches its standard
    input, so that it ends if this process is killed.

    Args:
        storage: URL of the storage.
        arguments: Arguments of the command.
        logger: Gets the lines that the process prints.
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
            env={**os.environ, **CHILD_ENVIRONMENT, "MIIII_STORAGE": storage},
        )
        self.lines: list[str] = []
        """The last lines that the process has printed."""
        self._reader = threading.Thread(target=self._read, args=(logger,), daemon=True)
        self._reader.start()

    def exit_code(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._process.poll()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Tell the process to stop, and kill it if it does not."""
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

    def _read(self, logger: logging.Logger) -> None:
        """Log all lines. The process would wait forever on a pipe that nobody reads."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines = [*self.lines[-LINES_KEPT:], line.rstrip()]
            with contextlib.suppress(Exception):  # a handler or filter of the caller's may raise anything
                logger.info(line.rstrip())


def run_study(
    study: Study,
    storage: str,
    *,
    lanes: int | None,
    stop: threading.Event,
    on_poll: Callable[[], object],
) -> bool:
    """Coordinate a study, and train it with one worker.

    Args:
        study: The study.
        storage: URL of its storage, with the password, for the worker.
        lanes: Number of lanes of the worker; None measures how many train fastest.
        stop: Ends the work, from any thread.
        on_poll: Called every few seconds.

    Returns:
        Whether the study is done; False if `stop` was set before.

    Raises:
        WorkerDiedError: The worker failed. The error quotes its last line.
    """
    arguments = ["work", "--study", study.name, *(["--lanes", str(lanes)] if lanes else [])]
    with ChildProcess(storage, arguments, worker_logger) as worker:

        def check() -> None:
            # Exit code 0: the worker found the study done before this process did.
            if worker.exit_code() not in (None, 0):
                last = next((line for line in reversed(worker.lines) if line), "it said nothing")
                raise WorkerDiedError(f"the worker ended with exit code {worker.exit_code()}: {last}")
            on_poll()

        return supervise(study, stop, check)
