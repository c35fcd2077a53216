"""Projects of Docker Compose, for tests: brought up from our files, taken down with all that is theirs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def has_compose() -> bool:
    """Whether Compose can read files here."""
    return shutil.which("docker") is not None and _succeeds("docker", "compose", "version")


def has_engine() -> bool:
    """Whether there is an engine that answers."""
    return has_compose() and _succeeds("docker", "info")


class Project:
    """One of our compose files under a name of its own, with settings as `.env` would have them.

    The name ends in this process's id: another run of the tests beside this one has projects of its own.
    """

    def __init__(self, name: str, settings: Mapping[str, str], folder: Path, file: str = "docker-compose.yml") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = f"{name}-{os.getpid()}"
        self.settings = settings
        path = folder / f"{name}.env"
        written = {**settings, "MIIII_ENV_FILE": str(path)}
        path.write_text("".join(f"{key}={value}\n" for key, value in written.items()))
        self._file = file
        self._options = ("--file", str(ROOT / file), "--project-name", self.name, "--env-file", str(path))

    def with_settings(self, changes: Mapping[str, str], folder: Path) -> Project:
        """The same project with some settings changed, as if its `.env` had been edited."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.name.removesuffix(f"-{os.getpid()}")
        return Project(name, {**self.settings, **changes}, folder / "changed", self._file)

    def __call__(self, *arguments: str, code: int = 0, seconds: float = 600) -> str:
        """Runs a command of Compose and returns what it said on standard output."""
        done = self.start(*arguments, seconds=seconds)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def start(self, *arguments: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs a command of Compose, whatever its exit code will be."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MIIII_")}
        return subprocess.run(
            ["docker", "compose", *self._options, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            env=environment,
        )

    def shell(self, line: str, folder: Path) -> str:
        """Runs a line of the documentation as it stands there, in a folder, and returns what it said."""
        assert line.startswith("docker compose ")
        line = shlex.join(["docker", "compose", *self._options]) + line.removeprefix("docker compose")
        done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def search(self, *arguments: str) -> str:
        """Runs `miiii-search` in the coordinator's container."""
        return self("exec", "--no-TTY", "coordinator", "miiii-search", *arguments)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.search("status", "--json"))
        return status

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Those of a service, running or not, as Compose tells of them."""
        lines = self("ps", "--all", "--format", "json", service).splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self("down", "--volumes", "--timeout", "5")


def inspect(container: str) -> dict[str, Any]:
    """Return what the engine says about a container or an image."""
    [found] = json.loads(subprocess.run(["docker", "inspect", container], capture_output=True, check=True).stdout)
    assert isinstance(found, dict)
    return found


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
