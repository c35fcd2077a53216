"""The length of a chunk: about a second, so that signals, leases and new runs are handled promptly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from miiii_search.training.lane_functions import MAX_EVALUATIONS

CHUNK_SECONDS = 1.0


class ChunkSizer:
    """Chooses the length of the next chunk from the time that the last one took.

    Attributes:
        evaluations: Number of evaluation intervals of the next chunk.
        seconds: Duration of the last chunk.
    """

    def __init__(self) -> None:
        self.evaluations = 1
        self.seconds = 0.0

    @contextmanager
    def measure(self, evaluations: int) -> Iterator[None]:
        """Measure a block that trains a number of evaluation intervals."""
        start = time.monotonic()
        yield
        self.seconds = time.monotonic() - start
        wanted = int(evaluations * CHUNK_SECONDS / max(self.seconds, 1e-3))
        # At most doubled: a chunk that was short because its runs ended says little about the next.
        self.evaluations = max(1, min(wanted, 2 * self.evaluations, MAX_EVALUATIONS))
