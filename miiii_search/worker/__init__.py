"""The worker: it trains trials of a study on one machine.

A worker claims trials from the queue and trains them side by side in lanes. It reports their accuracies, has bad
ones pruned, saves checkpoints, and writes results. `Worker` is the main loop. Each of its parts is a module of its
own: claims (`fetcher`), lanes (`lane_tuner`), running trials (`trial_manager`), results (`finalizer`), checkpoints
(`checkpoint_writer`), leases (`heartbeat`, `lease_returner`), the budget (`budget_watch`) and pauses (`study_watch`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miiii_search.worker.options import CheckpointPolicy, WorkerOptions

if TYPE_CHECKING:
    from miiii_search.worker.worker import Worker

__all__ = ["CheckpointPolicy", "Worker", "WorkerOptions"]


def __getattr__(name: str) -> Any:
    """Import `Worker` on first use, because it imports JAX."""
    if name == "Worker":
        from miiii_search.worker.worker import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
