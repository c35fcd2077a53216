"""Leases that a worker could not return when it stopped, because the database was unavailable.

The worker writes the tokens of the leases to a file. The next worker with the same folder returns the trials, which
would otherwise wait until their leases expire. A token that is not valid any more returns nothing.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Collection
from pathlib import Path

from miiii_search.files import write_file
from miiii_search.storage.urls import redact_url
from miiii_search.study.study import Study
from miiii_search.trial_queue.leases import Lease


class UnreturnedLeases:
    """Files `unreturned/ID.json` in the folder of a machine's checkpoints.

    Each file holds the leases that one worker could not return.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self._folder = folder / "unreturned"
        self._queue = study.queue
        self._database_url = redact_url(study.database.url)

    def save(self, held: Collection[Lease]) -> None:
        """Record leases that could not be returned.

        Raises:
            OSError: The file cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = [{"trial_id": lease.trial_id, "number": lease.number, "token": lease.token} for lease in held]
        path = self._folder / f"{uuid.uuid4().hex}.json"
        write_file(path, json.dumps({"database": self._database_url, "leases": rows}))

    def requeue(self) -> list[int]:
        """Return the recorded leases of earlier workers of this machine. Return the numbers of their trials."""
        numbers: list[int] = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                held = [Lease(int(row["trial_id"]), int(row["number"]), str(row["token"])) for row in content["leases"]]
                database_url = content["database"]
            except FileNotFoundError:
                continue  # another worker of this machine has just returned them
            except (OSError, ValueError, KeyError, TypeError):
                held, database_url = [], self._database_url  # damaged file: the leases expire
            if database_url == self._database_url:
                numbers += self._queue.requeue(held) if held else []
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        return sorted(numbers)
