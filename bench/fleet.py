"""Question: how many workers can one PostgreSQL serve?

    python bench/fleet.py --quick --json fleet.json

Simulates hundreds of workers of 32 lanes each against one PostgreSQL on this machine. The workers are the real ones,
except for two things: a clock replaces their training, and the pictures of learning curves have a fixed size. They run
as threads of a few processes with pooled connections, as with PgBouncer. Trials start in the middle of their lives, so
that as many end at the beginning as later.

The output has one row per number of workers: statements per second, the CPU cores of the server and of the workers, and
the latency of each kind of call in ms. The three numbers are the median, the 95th percentile and the maximum.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import threading
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from clock_pool import EPOCHS, LANES, Clock, ClockPool

from miiii_search.config.presets import TABLE_1
from miiii_search.config.study_sections import Budget, Replicates
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners import peers
from miiii_search.storage import database as storage
from miiii_search.storage import engines
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.testing.postgres import PostgresServer
from miiii_search.trial_queue.trial_queue import TrialQueue
from miiii_search.worker import heartbeat, trial_result, worker

PROCESSES = 4
CONNECTIONS = 10
"""Connections per process."""

WARM_SECONDS = 15.0
"""Seconds between the start of workers and the measurement, because their first claims come all at the same time."""

PICTURE = bytes(40_000)
"""Stands for the picture of learning curves."""


class Timings:
    """Times and durations of each kind of call, and the times of all statements."""

    def __init__(self) -> None:
        self.samples: list[tuple[str, float, float]] = []
        self.statements: list[float] = []
        sa.event.listen(sa.engine.Engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.statements.append(time.time())

    def wrap(self, owner: Any, name: str, kind: str) -> None:
        """Replace a function by one that also records the duration of each call."""
        inner = getattr(owner, name)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            began = time.perf_counter()
            result = inner(*arguments, **keywords)
            self.samples.append((kind, time.time(), time.perf_counter() - began))
            return result

        setattr(owner, name, timed)


def simulate(
    url: str, steps: Sequence[int], seconds: float, trial_seconds: float, began: float, results: Any, index: int
) -> None:
    """Run one process, which adds its share of the workers at each step."""
    timings = Timings()
    timings.wrap(heartbeat.HeartbeatThread, "_renew", "lease round")
    timings.wrap(TrialQueue, "claim", "claim")
    timings.wrap(TrialQueue, "report", "report")
    timings.wrap(TrialQueue, "finish", "end of a trial")
    timings.wrap(peers.PeerReader, "read", "peers")
    # The default, ten times per second, would be too much for hundreds of workers on one machine.
    worker.EVENT_SECONDS = 1.0
    vars(trial_result)["draw_curves"] = lambda *_: PICTURE
    pool = {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": 600}
    arguments = engines.engine_arguments
    for module in (engines, storage):
        vars(module)["engine_arguments"] = lambda url, *, read_only=False: arguments(url, read_only=read_only) | pool
    clock, stop = Clock(), threading.Event()
    threads: list[threading.Thread] = []
    clock.start()
    study = open_study(open_database(url), None)
    for k, target in enumerate(steps):
        for n in range(len(threads) * PROCESSES + index, target, PROCESSES):
            trainers = ClockPool(clock, random.Random(n), trial_seconds)
            one = worker.Worker(study, LANES, trainers=trainers)
            threads.append(threading.Thread(target=one.run, args=(stop,), daemon=True))
            threads[-1].start()
        time.sleep(max(began + (k + 1) * seconds - time.time(), 0))
    results.put((timings.samples, timings.statements))
    results.close()
    results.join_thread()
    os._exit(0)  # without returning the leases


@dataclass
class Usage:
    """CPU seconds used so far by the server and by the workers."""

    server: float
    clients: float


def usage(server: psutil.Process, clients: Sequence[Any]) -> Usage:
    def of(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    return Usage(
        sum(of(p) for p in [server, *server.children(recursive=True)]), sum(of(psutil.Process(c.pid)) for c in clients)
    )


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="simulate 50 and 100 workers, for 30 seconds each")
    options.add_argument("--workers", default="50,100,200,350,500", help="numbers of workers (default %(default)s)")
    options.add_argument("--seconds", type=float, default=60.0, help="seconds per step (default %(default)s)")
    options.add_argument("--trial-minutes", type=float, default=30.0, help="minutes per trial (default %(default)s)")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = options.parse_args()
    steps = [50, 100] if arguments.quick else [int(n) for n in arguments.workers.split(",")]
    seconds = 30.0 if arguments.quick else arguments.seconds
    with PostgresServer() as server:
        rows = run(server, steps, seconds, 60 * arguments.trial_minutes)
    print(f"\n{os.cpu_count()} cores; a lease of 60 s is renewed every {heartbeat.RENEW_SECONDS:g} s")
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {"rows": rows, "lanes": LANES, "trial_minutes": arguments.trial_minutes, "cores": os.cpu_count()},
                indent=2,
            )
            + "\n"
        )


def run(server: PostgresServer, steps: Sequence[int], seconds: float, trial_seconds: float) -> list[dict[str, Any]]:
    """Run all steps, print one row for each, and return the rows."""
    url = server.create_database()
    database = open_database(url, create=True)
    n_trials = int(steps[-1] * LANES * (1 + len(steps) * seconds / trial_seconds) * 1.1)
    spec = StudySpec(
        experiment=Experiment(epochs=EPOCHS),
        space=TABLE_1,
        replicates=Replicates(count=-(-n_trials // 384)),
        budget=Budget(trials=n_trials),
    )
    began = time.perf_counter()
    create_study(database, "fleet", spec)
    print(f"a study of {n_trials:,} trials was created in {time.perf_counter() - began:.0f} s", flush=True)
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("ANALYZE"))
    database.close()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    start = time.time() + 15.0  # the processes import JAX first
    clients = [
        context.Process(target=simulate, args=(url, steps, seconds, trial_seconds, start, results, k))
        for k in range(PROCESSES)
    ]
    for client in clients:
        client.start()
    assert server._process is not None
    postgres = psutil.Process(server._process.pid)
    windows: list[tuple[float, float, Usage, Usage]] = []
    for k in range(len(steps)):
        opened = start + k * seconds + WARM_SECONDS
        time.sleep(max(opened - time.time(), 0))
        before = usage(postgres, clients)
        time.sleep(max(start + (k + 1) * seconds - 2.0 - time.time(), 0))
        windows.append((opened, time.time(), before, usage(postgres, clients)))
    samples: list[tuple[str, float, float]] = []
    statements: list[float] = []
    for _ in clients:
        some, times = results.get(timeout=120)
        samples += some
        statements += times
    for client in clients:
        client.join(30)
    rows = [summarise(n, window, samples, statements) for n, window in zip(steps, windows, strict=True)]
    kinds = ["lease round", "report", "peers", "claim", "end of a trial"]
    print(f"{'workers':>8}{'lanes':>7}{'statements/s':>14}{'PostgreSQL':>12}{'clients':>9}   ", end="")
    print("  ".join(f"{kind:>21}" for kind in kinds))
    for row in rows:
        print(
            f"{row['workers']:>8}{row['workers'] * LANES:>7,}{row['statements_per_second']:>14,.0f}"
            f"{row['server_cores']:>7.2f} cores{row['client_cores']:>6.2f}   "
            + "  ".join(cell(row["latency"].get(kind)) for kind in kinds)
        )
    return rows


def cell(latency: dict[str, float] | None) -> str:
    if latency is None:
        return f"{'–':>21}"
    return f"{1e3 * latency['p50']:>7,.0f} {1e3 * latency['p95']:>6,.0f} {1e3 * latency['max']:>6,.0f}"


def summarise(
    workers: int,
    window: tuple[float, float, Usage, Usage],
    samples: Sequence[tuple[str, float, float]],
    statements: Sequence[float],
) -> dict[str, Any]:
    """Return the figures of one step. Latencies are in seconds."""
    opened, closed, before, after = window
    by_kind: dict[str, list[float]] = defaultdict(list)
    for kind, moment, seconds in samples:
        if opened <= moment <= closed:
            by_kind[kind].append(seconds)
    length = closed - opened
    return {
        "workers": workers,
        "statements_per_second": sum(opened <= moment <= closed for moment in statements) / length,
        "server_cores": (after.server - before.server) / length,
        "client_cores": (after.clients - before.clients) / length,
        "per_second": {kind: len(found) / length for kind, found in by_kind.items()},
        "latency": {kind: quantiles(found) for kind, found in by_kind.items()},
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    at_95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return {"p50": ordered[len(ordered) // 2], "p95": at_95, "max": ordered[-1]}


if __name__ == "__main__":
    main()
