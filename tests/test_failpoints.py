"""Failpoints: what each action does, that they are off by default, and that the page names all of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import get_args

import pytest

from miiii_search import failpoints
from miiii_search.failpoints import Name
from miiii_search.testing.failpoints import Failpoints

ROOT = Path(__file__).parents[1]


def test_they_are_off_by_default() -> None:
    assert failpoints.folder is None
    failpoints.reach("chunk")


def test_a_thread_waits_until_it_is_released(failpoints_here: Failpoints) -> None:
    failpoints_here.arm("chunk")
    passed = threading.Event()

    def go() -> None:
        failpoints.reach("chunk")
        passed.set()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    assert failpoints_here.wait("chunk") == [os.getpid()]
    assert not passed.is_set()
    failpoints_here.release("chunk")
    assert passed.wait(600)
    thread.join()
    failpoints.reach("chunk")  # no longer armed


def test_it_may_pause_from_a_later_time_on(failpoints_here: Failpoints) -> None:
    failpoints_here.arm("chunk", "pause 3")
    failpoints.reach("chunk")
    failpoints.reach("chunk")
    thread = threading.Thread(target=failpoints.reach, args=("chunk",), daemon=True)
    thread.start()
    assert len(failpoints_here.wait("chunk", times=3)) == 3
    assert thread.is_alive()
    failpoints_here.arm("chunk", "pause 4")
    thread.join(600)
    assert not thread.is_alive()


def test_only_the_armed_one_delays(failpoints_here: Failpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    delays = list[float]()
    monkeypatch.setattr(time, "sleep", delays.append)
    failpoints_here.arm("chunk", "delay 0.5")
    failpoints.reach("compile")
    failpoints.reach("chunk")
    assert delays == [0.5]


@pytest.mark.process
def test_a_process_kills_itself(tmp_path: Path) -> None:
    armed = Failpoints(tmp_path / "failpoints")
    armed.arm("result-written", "kill")
    script = "from miiii_search import failpoints; failpoints.reach('chunk'); failpoints.reach('result-written')"
    with subprocess.Popen([sys.executable, "-c", script], env=armed.environment, cwd=ROOT) as process:
        assert process.wait(600) == -signal.SIGKILL
    assert armed.wait("result-written") == [process.pid]


def test_each_one_is_documented_and_used() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("### Failpoints")[1].split("\n## ")[0]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "miiii_search").rglob("*.py"))
    names = set(get_args(Name))
    assert set(re.findall(r"^\| `([a-z-]+)`", section, re.MULTILINE)) == names
    assert set(re.findall(r"failpoints\.reach\(\"([a-z-]+)\"\)", code)) == names
