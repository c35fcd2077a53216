"""The metrics as Prometheus reads them, with its own parser."""

from __future__ import annotations

import re
import threading
import urllib.request
from pathlib import Path

import pytest
from optuna.trial import TrialState
from prometheus_client.parser import text_string_to_metric_families

from miiii_search.coordinator.coordinator import supervise, wait_for_work
from miiii_search.errors import MiiiiSearchError
from miiii_search.metrics import prometheus
from miiii_search.metrics.prometheus import CoordinatorMetrics, Metric, WorkerCounters
from miiii_search.storage import schema
from miiii_search.storage.database import Database
from miiii_search.storage.records import StudyCounts
from miiii_search.study.create import create_study
from miiii_search.study.extend import extend
from miiii_search.training.trainer_messages import ChunkTiming
from miiii_search.worker.worker import Worker
from tests.support import SPACE, claim, end, make_spec

DOCUMENTED = set(
    re.findall(
        r"^\| `(miiii_[a-z_]+)",
        (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text(),
        re.MULTILINE,
    )
)


def scrape(url: str) -> dict[str, float]:
    """Return the values by name, with the state in brackets."""
    with urllib.request.urlopen(url, timeout=600) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return {s.name + "".join(f"[{state}]" for state in s.labels.values()): s.value for s in samples}


def address(lines: list[str]) -> str:
    [line] = [line for line in lines if line.startswith("metrics: ")]
    return line.removeprefix("metrics: ")


@pytest.mark.slow
def test_a_worker_tells_what_it_does(database: Database, logged: list[str]) -> None:
    """Check that all epochs are counted at the end of a study, and that lanes are busy during training."""
    study = create_study(database, "s", make_spec(space={**SPACE, "n_heads": (2,)}, budget={"trials": 3}))
    seen: list[dict[str, float]] = []
    one_at_a_time = threading.Lock()

    def look(chunk: ChunkTiming) -> None:
        with one_at_a_time:  # called by each lane's thread
            seen.append(scrape(address(logged)))

    worker = Worker(study, 2, on_chunk=look)
    with prometheus.serve(worker.metrics, "127.0.0.1", 0):
        before = scrape(address(logged))
        worker.run(threading.Event())
        after = scrape(address(logged))
    assert before["miiii_lane_epochs_total"] == before["miiii_lanes_busy"] == 0
    trained = [trial.user_attrs["epochs_trained"] for trial in study.trials()]
    assert after["miiii_lane_epochs_total"] == sum(trained) > 0
    assert after["miiii_lanes"] == 2 and after["miiii_lanes_busy"] == after["miiii_reports_waiting"] == 0
    assert max(at["miiii_lanes_busy"] for at in seen) == 2
    totals = [at["miiii_lane_epochs_total"] for at in seen]
    assert totals == sorted(totals)
    assert after["miiii_device_seconds_total"] > 0 and after["miiii_database_silent_seconds"] < 60
    assert "process_resident_memory_bytes" in after


def test_totals_go_on_with_the_next_worker_of_a_process(database: Database) -> None:
    """Check that totals do not fall when a study that was done is extended and trained again."""
    counters = WorkerCounters()
    study = create_study(database, "s", make_spec(space={**SPACE, "n_heads": (2,)}, budget={"trials": 1}))
    Worker(study, 1, counters=counters).run(threading.Event())
    first = counters.lane_epochs
    extend(study, ["budget.trials=2"])
    Worker(study, 1, counters=counters).run(threading.Event())
    assert 0 < first < counters.lane_epochs == sum(trial.user_attrs["epochs_trained"] for trial in study.trials())


def test_a_coordinator_that_waits_goes_on_looking(database: Database) -> None:
    study = create_study(database, "s", make_spec(budget={"trials": 1}))
    end(study, claim(study))
    seen, stop = list[StudyCounts](), threading.Event()

    def record(counts: StudyCounts) -> None:
        seen.append(counts)
        stop.set()

    assert not wait_for_work(study, stop, on_counts=record)
    assert seen[0].counts[TrialState.COMPLETE] == 1


def test_a_coordinator_tells_what_it_saw(database: Database, logged: list[str]) -> None:
    study = create_study(database, "s", make_spec(budget={"trials": 4, "solved": 1}))
    end(study, claim(study), value=1.5, epochs_to_solve=8)
    end(study, claim(study), TrialState.PRUNED)
    metrics = CoordinatorMetrics()
    with prometheus.serve(metrics.read, "127.0.0.1", 0):
        assert not [name for name in scrape(address(logged)) if name.startswith("miiii_trials")]
        assert supervise(study, threading.Event(), on_counts=metrics.update)
        after = scrape(address(logged))
    counts = {"complete": 1, "pruned": 1, "waiting": 2, "running": 0, "fail": 0}
    assert {name: after[f"miiii_trials[{name}]"] for name in counts} == counts
    assert after["miiii_oldest_lease_seconds"] == 0


def test_the_oldest_lease_is_by_the_database_s_clock(database: Database) -> None:
    study = create_study(database, "s", make_spec())
    assert study.read_counts().oldest_lease_seconds == 0
    claim(study)
    old = claim(study)
    with database.transaction() as connection:
        leases = schema.leases
        connection.execute(
            leases.update().where(leases.c.token == old.token).values(renewed_at=schema.now(connection) - 1000)
        )
    counts = study.read_counts()
    assert 1000 <= counts.oldest_lease_seconds < 1060
    assert counts.counts == study.counts() and counts.counts[TrialState.RUNNING] == 2
    other = create_study(database, "other", make_spec())
    assert other.read_counts().oldest_lease_seconds == 0


def test_all_metrics_are_documented(database: Database) -> None:
    study = create_study(database, "s", make_spec())
    metrics = CoordinatorMetrics()
    metrics.update(StudyCounts(study.counts(), 1.0))
    found = [*Worker(study, 1).metrics(), *metrics.read()]
    assert {metric.name + "_total" * metric.is_total for metric in found} == DOCUMENTED


def test_devices_are_counted_while_they_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("miiii_search.metrics.prometheus.time.monotonic", lambda: now)
    counters = WorkerCounters()
    for at, devices in ((110.0, 4), (115.0, 4), (117.5, 0), (200.0, 1), (201.0, 1)):
        now = at
        counters.hold(devices)
    assert counters.device_seconds == 4 * 7.5 + 1


def test_off_by_default_and_a_taken_port(logged: list[str]) -> None:
    metrics = [Metric("miiii_one", "One", 1.0), Metric("miiii_two", "Two", 2.0, is_total=True)]
    with prometheus.serve(lambda: metrics, "127.0.0.1", None):
        assert not logged
    with prometheus.serve(lambda: metrics, "::1", 0):
        url = address(logged)
        assert scrape(url)["miiii_two_total"] == 2
        port = int(url.rpartition(":")[2].partition("/")[0])
        with (
            pytest.raises(
                MiiiiSearchError, match=f"port {port} .*Address already in use.*--metrics-port .*--metrics-host$"
            ),
            prometheus.serve(lambda: metrics, "::1", port),
        ):
            pass
