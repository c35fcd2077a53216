"""Leases that a worker could not hand back when it stopped, because the database was away.

The worker writes their tokens to a file, and the next worker with the same folder hands the trials back: they do not
wait for their leases to run out. A token that is no longer valid hands nothing back.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Collection
from pathlib import Path

from miiii_search.files import write_file
from miiii_search.storage.database import Database
from miiii_search.storage.urls import redact_url
from miiii_search.trial_queue.leases import Lease
from miiii_search.trial_queue.requeue import requeue_leases


class UnreturnedLeases:
    """Files `unreturned/ID.json` in the folder of a machine's checkpoints, one per worker that could not hand back."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder / "unreturned"
        self._database = database
        self._place = redact_url(database.url)

    def save(self, held: Collection[Lease]) -> None:
        """Writes down what could not be handed back. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = [{"trial_id": lease.trial_id, "number": lease.number, "token": lease.token} for lease in held]
        path = self._folder / f"{uuid.uuid4().hex}.json"
        write_file(path, json.dumps({"database": self._place, "leases": rows}))

    def hand_back(self) -> list[int]:
        """Hands back what earlier workers of this machine could not; returns the numbers of the trials."""
        numbers: list[int] = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                held = [Lease(int(row["trial_id"]), int(row["number"]), str(row["token"])) for row in content["leases"]]
                place = content["database"]
            except FileNotFoundError:
                continue  # another worker of this machine was faster
            except (OSError, ValueError, KeyError, TypeError):
                held, place = [], self._place  # damaged: their leases run out
            if place == self._place:
                numbers += requeue_leases(self._database, held) if held else []
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        return sorted(numbers)
