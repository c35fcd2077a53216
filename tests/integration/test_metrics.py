"""`--metrics-port` as a user gives it, and what is said when the port is taken."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes, wait_for


def test_a_coordinator_and_a_worker_serve_metrics(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run("create", "--preset", "demo", *TINY, "--trials", "2", storage=storage)
    coordinator = processes.start("coordinate", "--study", "demo", "--metrics-port", "0", storage=storage)
    url = wait_for(lambda: re.search(r"metrics: (http://127\S+)", processes.log(coordinator)))[1]

    def read() -> str:
        with urllib.request.urlopen(url, timeout=600) as answer:
            return str(answer.read().decode())

    assert wait_for(lambda: 'miiii_trials{state="waiting"} 2.0' in read())
    port = url.rpartition(":")[2].removesuffix("/metrics")
    second = processes.start("work", "--study", "demo", "--metrics-port", port, storage=storage)
    assert second.wait(LIMIT_SECONDS) == 2
    assert f"cannot serve metrics on port {port}" in processes.log(second)
    processes.environment["MIIII_METRICS_PORT"] = "0"
    worker = processes.start("work", "--study", "demo", storage=storage)
    assert worker.wait(LIMIT_SECONDS) == 0 and "metrics: http://127.0.0.1:" in processes.log(worker)
    assert coordinator.wait(LIMIT_SECONDS) == 0
