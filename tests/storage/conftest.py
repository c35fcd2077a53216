"""The databases on which the contract of the store is tested: those of the queue's contract."""

from tests.trial_queue.conftest import backend, opened

__all__ = ["backend", "opened"]
