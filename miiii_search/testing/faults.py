"""A study under faults of all kinds at random moments, and what has become of it.

The tests run it for minutes, `bench/faults.py` for hours: two machines (a worker, a disk of its own, a network of its
own each), two coordinators, one PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import schema
from miiii_search.testing.postgres import PostgresServer, open_engine
from miiii_search.testing.processes import Processes, read_trials
from miiii_search.testing.proxy import Proxy

SHAPE = (
    *("--set", "experiment.p=13", "--set", "experiment.validation_samples=20", "--set", "hyperparameters.d_model=16"),
    *("--set", "experiment.target_accuracy=1.0", "--set", "experiment.evaluate_every=50"),
)
EPOCHS = int(os.environ.get("MIIII_FAULT_EPOCHS", "40000"))
"""Of a trial: some seconds."""

LEASE_SECONDS = 4.0

WORK = ("work", "--study", "faults", "--lanes", "2", "--checkpoint-every", "0.5", "--share-every", "2")


def create(trials: int, epochs: int = EPOCHS, lease: float = LEASE_SECONDS) -> tuple[str, ...]:
    """The command that creates a study whose trials differ in their seeds alone, and few of which end early."""
    return (
        *("create", "--study", "faults", "--preset", "demo", *SHAPE, "--set", f"replicates={trials}"),
        *("--set", "space.dropout=[0.5]", "--set", "space.weight_decay=[1.0]", "--set", "space.grokfast_lambda=[0.0]"),
        *("--set", f"experiment.epochs={epochs}", "--set", "pruning.rule=none", "--set", f"lease_seconds={lease}"),
    )


@dataclass(frozen=True)
class Ended:
    """What one trial came to."""

    weights: str
    """Their SHA-256."""
    reports: dict[int, float]


def ended(trials: Sequence[optuna.trial.FrozenTrial]) -> dict[int, Ended]:
    """What each trial came to, by its seed."""
    complete = (t for t in trials if t.state == TrialState.COMPLETE)
    return {
        t.user_attrs["seed"]: Ended(t.user_attrs["metrics"]["weights_sha256"], t.intermediate_values) for t in complete
    }


def unbroken(folder: Path, trials: int) -> dict[int, Ended]:
    """What the trials come to without any fault, by their seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    processes, storage = Processes(folder), f"sqlite:///{folder}/study.db"
    try:
        processes.run(*create(trials), storage=storage)
        worker = processes.start("work", "--study", "faults", "--lanes", "2", storage=storage)
        assert worker.wait(120 + 30 * trials) == 0, processes.log(worker)
        return ended(read_trials(storage, "faults"))
    finally:
        processes.close()


@dataclass
class Result:
    """What faults did to studies."""

    trials: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    resumed: list[int] = field(default_factory=list)
    """The epochs above 0 at which trials were gone on with."""
    restarted: int = 0
    """Trials begun anew at epoch 0, after they had been trained."""
    redone: int = 0
    """Epochs that were trained more than once."""
    lost: int = 0
    """Trials that did not end COMPLETE, or are not there."""
    doubled: int = 0
    """Trials more than there should be, or ended more than once."""
    reports_lost: int = 0
    """Reports that are missing, or are not what they are without faults."""
    different: int = 0
    """Trials with other weights than without faults."""
    seconds: float = 0.0


@dataclass
class Machine:
    """A worker with a disk and a network of its own."""

    folder: Path
    proxy: Proxy
    worker: subprocess.Popen[str]


class FaultyCluster:
    """Two workers and two coordinators on a PostgreSQL of their own; `strike` breaks something and mends it."""

    def __init__(self, folder: Path, trials: int, chance: random.Random, longest: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.processes = Processes(folder)
        self.result = Result()
        self._folder = folder
        self._trials = trials
        self._chance = chance
        self._longest = longest
        self._server = PostgresServer()
        self._reached: dict[int, int] = {}
        """The furthest epoch of each trial that anybody has told of."""
        self._read: Counter[int] = Counter()
        self._ends: Counter[int] = Counter()

    def __enter__(self) -> FaultyCluster:
        self._server.start()
        self._storage = self._server.create_database()
        self.processes.run(*create(self._trials), storage=self._storage)
        self._coordinators = [self._coordinate() for _ in range(2)]
        self._machines = []
        for k in range(2):
            proxy, folder = Proxy(self._storage), self._folder / f"machine-{k}"
            disk_of(folder).mkdir()
            point(folder, disk_of(folder))
            self._machines.append(Machine(folder, proxy, self._work(k, proxy)))
        self._logs = [machine.worker for machine in self._machines]
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.close()
        for machine in self._machines:
            machine.proxy.close()
        self._server.close()

    @property
    def done(self) -> bool:
        """Whether a coordinator found the study done."""
        return any(coordinator.poll() == 0 for coordinator in self._coordinators)

    def strike(self, fault: str) -> None:
        """Breaks something, mends it, and counts it. A worker is struck while it has a trial."""
        machine = self._chance.choice(self._machines)
        if not self.wait_until_it_trains(machine, saved=self._chance.random() < 0.5):
            return
        time.sleep(self._chance.uniform(0.0, 2.0))
        self.look()
        FAULTS[fault](self, machine)
        self.result.faults[fault] += 1
        self.look()

    def wait_until_it_trains(self, machine: Machine, saved: bool) -> bool:
        """False if the study was done before."""
        query = sa.select(schema.leases.c.saved_epoch).where(schema.leases.c.worker.endswith(f":{machine.worker.pid}"))
        while not self.done:
            with self._connect() as connection:
                if any(epoch > 0 or not saved for epoch in connection.execute(query).scalars()):
                    return True
            if machine.worker.poll() == 0:
                return False  # there was nothing left for it
            self.look()
            time.sleep(0.2)
        return False

    def finish(self, reference: dict[int, Ended]) -> Result:
        """Waits for the study's end and compares it with the one without faults."""
        deadline = time.monotonic() + 120 + 30 * self._trials
        while not self.done:
            assert time.monotonic() < deadline, "the study does not come to its end"
            self.look()
            time.sleep(0.2)
        for process in [*(machine.worker for machine in self._machines), *self._coordinators]:
            assert process.wait(120 + 30 * self._trials) == 0, self.processes.log(process)
        self.look()
        trials, result = read_trials(self._storage, "faults"), self.result
        result.trials = self._trials
        seeds = Counter(t.user_attrs.get("seed") for t in trials if t.state == TrialState.COMPLETE)
        result.lost = sum(seed not in seeds for seed in range(self._trials))
        result.doubled = max(len(trials) - self._trials, 0) + sum(n - 1 for n in self._ends.values())
        for seed, found in ended(trials).items():
            expected = reference[seed]
            result.different += found.weights != expected.weights
            result.reports_lost += len(found.reports.items() ^ expected.reports.items())
        for process in self._logs:
            assert "Traceback" not in self.processes.log(process), self.processes.log(process)
        return result

    def look(self) -> None:
        """Takes note of how far trials are, and of what workers said since; starts again who found no database.

        That is for whoever started them, Compose for instance: at a start nobody knows yet whether a database will
        ever be there.
        """
        for machine in self._machines:
            if self._found_no_database(machine.worker):
                self._restart(machine)
        for k, coordinator in enumerate(self._coordinators):
            if self._found_no_database(coordinator):
                self._coordinators[k] = self._coordinate()
        with contextlib.suppress(sa.exc.DBAPIError), self._connect() as connection:
            query = sa.select(schema.trials.c.number, schema.leases.c.epoch).join(
                schema.leases, schema.leases.c.trial_id == schema.trials.c.trial_id
            )
            rows = connection.execute(query).all()
            for number, epoch in rows:
                self._reached[number] = max(self._reached.get(number, 0), epoch)
        for index, process in enumerate(self._logs):
            lines = self.processes.log(process).splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            for line in whole[self._read[index] :]:
                self._note(line)
            self._read[index] = len(whole)

    def _found_no_database(self, process: subprocess.Popen[str]) -> bool:
        if process.poll() in (None, 0):
            return False
        last = self.processes.log(process).strip().splitlines()[-1]
        assert re.match("error: (cannot reach|cannot use|the database stopped answering)", last), self.processes.log(
            process
        )
        return True

    def _note(self, line: str) -> None:
        if match := re.match(r"Trial (\d+) starts(?: from epoch ([\d,]+))?", line):
            number, epoch = int(match[1]), int((match[2] or "0").replace(",", ""))
            reached = self._reached.get(number, 0)
            self.result.redone += max(reached - epoch, 0)
            if epoch:
                self.result.resumed.append(epoch)
            else:
                self.result.restarted += reached > 0
        elif match := re.match(r"Trial (\d+) (was not solved|solved)", line):
            self._ends[int(match[1])] += 1

    def _connect(self) -> sa.Connection:
        return open_engine(self._storage).connect()

    def _coordinate(self) -> subprocess.Popen[str]:
        return self.processes.start("coordinate", "--study", "faults", storage=self._storage)

    def _work(self, index: int, proxy: Proxy) -> subprocess.Popen[str]:
        return self.processes.start(*WORK, "--checkpoints", f"machine-{index}", storage=proxy.url)

    def _restart(self, machine: Machine) -> None:
        machine.worker = self._work(self._machines.index(machine), machine.proxy)
        self._logs.append(machine.worker)

    def _kill(self, machine: Machine) -> None:
        machine.worker.kill()
        machine.worker.wait()
        self._restart(machine)

    def _terminate(self, machine: Machine) -> None:
        machine.worker.terminate()
        assert machine.worker.wait(60) == 0, self.processes.log(machine.worker)
        self._restart(machine)

    def _pause(self, machine: Machine) -> None:
        machine.worker.send_signal(signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.5, self._longest))
        machine.worker.send_signal(signal.SIGCONT)

    def _break_network(self, machine: Machine, fault: str) -> None:
        machine.proxy.fault = fault
        machine.proxy.break_connections()
        time.sleep(self._chance.uniform(0.5, self._longest))
        machine.proxy.fault = ""
        machine.proxy.break_connections()

    def _stop_database(self, mode: str) -> None:
        self._server.stop(mode)  # type: ignore[arg-type]
        time.sleep(self._chance.uniform(0.0, self._longest))
        self._server.start()

    def _kill_coordinator(self, _machine: Machine) -> None:
        index = self._chance.randrange(2)
        self._coordinators[index].kill()
        self._coordinators[index].wait()
        self._coordinators[index] = self._coordinate()

    def _damage(self, machine: Machine, how: Callable[[Path], None]) -> None:
        """Kills a worker and damages its newest checkpoint."""
        machine.worker.kill()
        machine.worker.wait()
        files = sorted(machine.folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
        if files:
            how(files[-1])
        self._restart(machine)

    def _take_disk(self, machine: Machine) -> None:
        """Puts a file where the folder was, for a moment, as a disk that is gone."""
        no_folder = machine.folder.with_suffix(".file")
        no_folder.write_text("no folder")
        point(machine.folder, no_folder)
        time.sleep(self._chance.uniform(0.5, 4.0))
        point(machine.folder, disk_of(machine.folder))


def disk_of(folder: Path) -> Path:
    """What the folder of a machine, a symbolic link, points to."""
    return folder.with_suffix(".disk")


def point(link: Path, target: Path) -> None:
    """At once, since a worker may make a folder where it finds none."""
    new = link.with_suffix(".new")
    new.symlink_to(target)
    new.replace(link)


def truncate(path: Path) -> None:
    """As a disk that was full, or a machine that lost its power."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One bit of it, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


FAULTS: dict[str, Callable[[FaultyCluster, Machine], None]] = {
    "worker killed": FaultyCluster._kill,
    "worker told to stop": FaultyCluster._terminate,
    "worker paused": FaultyCluster._pause,
    "connections cut": lambda chaos, machine: chaos._break_network(machine, "cut"),
    "connections silent": lambda chaos, machine: chaos._break_network(machine, "silence"),
    "connections half-closed": lambda chaos, machine: chaos._break_network(machine, "half-closed"),
    "connections slow": lambda chaos, machine: chaos._break_network(machine, "delay"),
    "database stopped": lambda chaos, _: chaos._stop_database("fast"),
    "database crashed": lambda chaos, _: chaos._stop_database("immediate"),
    "coordinator killed": FaultyCluster._kill_coordinator,
    "checkpoint truncated": lambda chaos, machine: chaos._damage(machine, truncate),
    "checkpoint's bit flipped": lambda chaos, machine: chaos._damage(machine, flip),
    "disk gone": FaultyCluster._take_disk,
}
"""What may happen, by name."""


def run(
    folder: Path,
    reference: dict[int, Ended],
    trials: int,
    faults: Iterable[str],
    chance: random.Random,
    longest: float = 3 * LEASE_SECONDS,
) -> Result:
    """A study of so many trials under these faults, one after the other; the rest of it without.

    Outages and pauses last up to `longest` seconds.
    """
    began = time.monotonic()
    with FaultyCluster(folder, trials, chance, longest) as chaos:
        for fault in faults:
            if chaos.done:
                break
            chaos.strike(fault)
        result = chaos.finish(reference)
    result.seconds = time.monotonic() - began
    return result
