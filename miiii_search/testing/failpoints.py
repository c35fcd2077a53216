"""The tests' side of `miiii_search.failpoints`: arm a failpoint, wait until a process reaches it, and let it go on."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from miiii_search.failpoints import Name
from miiii_search.testing.processes import wait_for


class Failpoints:
    """A folder of failpoints.

    Args:
        folder: The folder, which is created.

    Attributes:
        environment: The environment variables of the processes that look into the folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.environment = {"MIIII_FAILPOINTS": str(folder)}

    def arm(self, name: Name, action: str = "pause") -> None:
        """Make every thread that reaches the failpoint from now on do something. Called again, it changes what.

        Args:
            name: Name of the failpoint.
            action: `pause` until `release` is called, `pause N` from the Nth time on, `kill`, `delay SECONDS`, or
                `pass` to note it only.
        """
        unfinished = self._folder / f"{name}.unfinished"
        unfinished.write_text(action)
        unfinished.replace(self._folder / name)

    def wait(self, name: Name, times: int = 1) -> list[int]:
        """Wait until an armed failpoint was reached this many times in all, and return the ids of the processes."""
        return [int(line) for line in wait_for(lambda: self._announcements(name, times))]

    def release(self, name: Name) -> None:
        """Disarm a failpoint. Threads that are paused there go on."""
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Disarm all failpoints."""
        for name in get_args(Name):
            self.release(name)

    def _announcements(self, name: Name, times: int) -> list[str]:
        """Return the announcements of a failpoint, or nothing if there are fewer than this many."""
        announcement = self._folder / f"{name}.reached"
        lines = announcement.read_text().splitlines(keepends=True) if announcement.exists() else []
        complete = [line for line in lines if line.endswith("\n")]
        return complete if len(complete) >= times else []
