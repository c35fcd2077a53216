"""`miiii-search dashboard` as a process, as a container starts it."""

from __future__ import annotations

import base64
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from miiii_search.testing.processes import TINY, Processes, wait_for


@pytest.fixture
def storage(processes: Processes, tmp_path: Path) -> str:
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run("create", "--preset", "demo", *TINY, "--trials", "2", storage=storage)
    return storage


def status_of(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=600) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def start(processes: Processes, storage: str, *arguments: str) -> str:
    """The dashboard's port."""
    page = processes.start("dashboard", "--port", "0", *arguments, storage=storage)
    return str(wait_for(lambda: re.search(r"dashboard: http://\S+:(\d+)/", processes.log(page)))[1])


def test_published_on_loopback(processes: Processes, storage: str) -> None:
    """Anyone's packets come in, but only requests for this machine by its own name are answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start(processes, storage, "--host", "0.0.0.0", "--port", port, "--published", f"127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}/api/studies"
    assert status_of(url) == 200
    assert status_of(url, Host=f"localhost:{port}") == 200
    assert status_of(url, Host=f"attacker.example:{port}") == 403


def test_password_of_a_secret(processes: Processes, storage: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("grokked\n")
    processes.environment["MIIII_DASHBOARD_PASSWORD_FILE"] = str(tmp_path / "secret")
    url = f"http://127.0.0.1:{start(processes, storage, '--host', '0.0.0.0')}/api/studies"
    assert status_of(url) == 401
    assert status_of(url, Authorization="Basic " + base64.b64encode(b":grokked").decode()) == 200
