"""Runs the command line in real processes, and waits for their results."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy as sa

from miiii_search.storage import schema
from miiii_search.testing.postgres import open_engine

LIMIT_SECONDS = 600.0
"""Longest wait of a test, in seconds. On a machine that does much else, seconds of work take minutes."""

COMMAND = [sys.executable, "-m", "miiii_search"]

TINY = (
    *("--set", "experiment.p=7", "--set", "experiment.epochs=32", "--set", "experiment.evaluate_every=8"),
    *("--set", "experiment.validation_samples=10", "--set", "hyperparameters.d_model=16"),
)
"""Settings with which a trial takes a fraction of a second."""


class Processes:
    """Starts commands in one folder, and kills those that are left, and their children, when it is closed.

    Attributes:
        folder: Working directory of the commands, which also holds their logs.
        environment: Additional environment variables of the commands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"XDG_STATE_HOME": str(folder / "state")}
        self._started: list[subprocess.Popen[str]] = []
        self._commands: dict[subprocess.Popen[str], str] = {}

    def start(
        self, *arguments: str, storage: str, within: Sequence[str] = (), stdin: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a command whose output is written to a log file of its own.

        Args:
            *arguments: Arguments of `miiii-search`.
            storage: URL of the database.
            within: A command that runs the command, such as `nohup`.
            stdin: File descriptor for the standard input; inherited if unset.
        """
        log = self.folder / f"{len(self._started)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*within, *COMMAND, *arguments],
                cwd=self.folder,
                env=clean_environment(storage) | self.environment,
                stdin=stdin,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._started.append(process)
        self._commands[process] = shlex.join(arguments)
        return process

    def log(self, process: subprocess.Popen[str]) -> str:
        """Return what a command has printed so far."""
        return (self.folder / f"{self._started.index(process)}.log").read_text()

    def has_logged(self, process: subprocess.Popen[str], text: str) -> bool:
        """Return whether a command has printed a text so far."""
        return text in self.log(process)

    def run(self, *arguments: str, storage: str, code: int = 0) -> str:
        """Run a command to its end, and return its standard output.

        Args:
            *arguments: Arguments of `miiii-search`.
            storage: URL of the database.
            code: Expected exit code.
        """
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=clean_environment(storage) | self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        """Kill all processes, and print the end of each log, which pytest shows if the test failed."""
        for process in self._started:
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            process.wait()
            for child in children:
                if child.is_running():
                    child.kill()
            print(f"$ miiii-search {self._commands[process]}", self.log(process)[-4000:], sep="\n")


def clean_environment(storage: str) -> dict[str, str]:
    """Return this process's environment without its `MIIII_` variables, but with the URL of a database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIIII_")}
    # Processes share a cache of compiled programs. JAX compiles again what another process is just writing there.
    ignored = "ignore:Error reading persistent compilation cache entry"
    return {**kept, "MIIII_STORAGE": storage, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": ignored}


def wait_for(condition: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> Any:
    """Call a condition until it returns a true value, and return that value.

    Raises:
        AssertionError: If it does not within this number of seconds.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"the condition was not met within {seconds:g} s"
        time.sleep(0.1)
    return found


def is_stopped(process: subprocess.Popen[str]) -> bool:
    """Return whether SIGSTOP has suspended all threads of a process."""
    states = [(thread / "stat").read_text() for thread in Path(f"/proc/{process.pid}/task").iterdir()]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


def trials_with_checkpoint(storage: str) -> list[int]:
    """Return the ids of the trials that have a checkpoint in the database."""
    with open_engine(storage).connect() as connection:
        return list(connection.execute(sa.select(schema.checkpoints.c.trial_id)).scalars())


def read_trials(storage: str, study: str) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of a study as Optuna itself reads them."""
    url = storage.replace("postgresql://", "postgresql+psycopg2://")
    backend = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name=study, storage=backend).get_trials()
    finally:
        backend.remove_session()
        backend.engine.dispose()
