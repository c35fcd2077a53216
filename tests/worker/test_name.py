"""Names of workers: people recognize them, and no two processes share one."""

from __future__ import annotations

import os
import re
import socket

import pytest

from miiii_search.errors import MiiiiSearchError
from miiii_search.worker.name import worker_name

CONTAINER = "3f2a91c07be4"


@pytest.mark.parametrize(
    ("host", "name", "role", "expected"),
    [
        ("gpu-box", None, None, r"gpu-box:PID"),
        ("gpu-box", "", "worker_gpu2", r"gpu-box:PID"),  # Compose passes an unset variable as an empty one
        ("gpu-box", "left", None, r"left:[0-9a-f]{6}:PID"),
        (CONTAINER, None, None, r"worker:[0-9a-f]{6}:PID"),
        (CONTAINER, None, "worker", r"worker:[0-9a-f]{6}:PID"),
        (CONTAINER, None, "worker_gpu2", r"gpu2:[0-9a-f]{6}:PID"),
        (CONTAINER, "left box", "worker_gpu2", r"left box:[0-9a-f]{6}:PID"),
    ],
)
def test_name(monkeypatch: pytest.MonkeyPatch, host: str, name: str | None, role: str | None, expected: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    found = worker_name(name, role)
    assert re.fullmatch(expected.replace("PID", str(os.getpid())), found)
    assert CONTAINER not in found


def test_workers_of_two_containers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the names of processes that have the same id, each in its own container."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    names = set()
    for host in (CONTAINER, "9b0c5d7e2f11"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        names.add(worker_name("gpu", None))
    assert len(names) == 2


@pytest.mark.parametrize("name", ["a\nb", " a", "a ", "a" * 101, "\x1b[31m"])
def test_no_name(name: str) -> None:
    with pytest.raises(MiiiiSearchError, match="choose another --name"):
        worker_name(name, None)
