"""How long a chunk may be: about a second, so that signals, leases and refills are prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from miiii_search.training.program import MAX_EVALUATIONS

CHUNK_SECONDS = 1.0


class ChunkSizer:
    """Chooses the evaluations of the next chunk from how long the last ones took."""

    def __init__(self) -> None:
        self.evaluations = 1
        self.seconds = 0.0
        """What the last chunk took."""

    @contextmanager
    def measure(self, evaluations: int) -> Iterator[None]:
        """Wraps the training of so many evaluation intervals."""
        start = time.monotonic()
        yield
        self.seconds = time.monotonic() - start
        wanted = int(evaluations * CHUNK_SECONDS / max(self.seconds, 1e-3))
        # At most doubled: a chunk that ended early, because its runs did, says little about the next.
        self.evaluations = max(1, min(wanted, 2 * self.evaluations, MAX_EVALUATIONS))
