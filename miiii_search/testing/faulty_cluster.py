"""Two workers, two coordinators and a PostgreSQL server, all real processes that `faults` breaks and repairs.

Each worker stands for a machine, with a disk and a network of its own.
"""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import schema
from miiii_search.testing.fault_study import STUDY, FinishedTrial, create_command, finished_by_seed
from miiii_search.testing.postgres import PostgresServer, open_engine
from miiii_search.testing.processes import Processes, read_trials
from miiii_search.testing.proxy import Proxy

WORK = ("work", "--study", STUDY, "--lanes", "2", "--checkpoint-every", "0.5", "--share-every", "2")


@dataclass
class FaultReport:
    """Consequences of the faults, for one study or several."""

    trials: int = 0
    """Number of trials that were to be trained."""
    faults: Counter[str] = field(default_factory=Counter)
    """Number of injected faults of each kind."""
    resumed: list[int] = field(default_factory=list)
    """The epochs, above 0, from which trials were resumed."""
    restarted: int = 0
    """Number of times that a trial which had been trained before started again at epoch 0."""
    retrained_epochs: int = 0
    """Number of epochs that were trained more than once."""
    lost: int = 0
    """Number of trials that are missing or not complete."""
    duplicated: int = 0
    """Number of surplus trials, and of trials that ended more than once."""
    reports_lost: int = 0
    """Number of reports that are missing or differ from those without faults."""
    different: int = 0
    """Number of trials whose weights differ from those without faults."""
    seconds: float = 0.0

    @property
    def is_intact(self) -> bool:
        """Whether every trial ended once with the result that it has without faults."""
        return (self.lost, self.duplicated, self.reports_lost, self.different) == (0, 0, 0, 0)


@dataclass
class Machine:
    """A worker with a disk and a network of its own."""

    folder: Path
    """A symbolic link to the folder of the machine's disk, which holds its checkpoints."""
    proxy: Proxy
    worker: subprocess.Popen[str]

    @property
    def disk(self) -> Path:
        """The folder that `folder` points to while the disk works."""
        return self.folder.with_suffix(".disk")


class FaultyCluster:
    """A context manager that starts the processes, creates the study, and ends the processes.

    Args:
        folder: Folder for logs and checkpoints.
        trials: Number of trials of the study.
        generator: Source of random choices.
        max_outage: Longest outage or pause in seconds.
    """

    def __init__(self, folder: Path, trials: int, generator: random.Random, max_outage: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.processes = Processes(folder)
        self.server = PostgresServer()
        self.generator = generator
        self.max_outage = max_outage
        self.report = FaultReport(trials)
        self._folder = folder
        self._reached: dict[int, int] = {}
        """Highest epoch of each trial that was seen in its lease."""
        self._n_read: Counter[int] = Counter()
        """Number of lines already read of each worker's log."""
        self._n_ends: Counter[int] = Counter()
        """Number of times that each trial ended, according to the logs."""

    def __enter__(self) -> FaultyCluster:
        self.server.start()
        self._storage = self.server.create_database()
        self.processes.run(*create_command(self.report.trials), storage=self._storage)
        self.coordinators = [self.start_coordinator() for _ in range(2)]
        self.machines = [self._start_machine(k) for k in range(2)]
        self._workers = [machine.worker for machine in self.machines]
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.close()
        for machine in self.machines:
            machine.proxy.close()
        self.server.close()

    @property
    def is_done(self) -> bool:
        """Whether a coordinator has found the study done and exited."""
        return any(coordinator.poll() == 0 for coordinator in self.coordinators)

    def start_coordinator(self) -> subprocess.Popen[str]:
        """Start a coordinator process."""
        return self.processes.start("coordinate", "--study", STUDY, storage=self._storage)

    def restart_worker(self, machine: Machine) -> None:
        """Start a new worker process on a machine whose worker has exited."""
        machine.worker = self._start_worker(machine.folder, machine.proxy)
        self._workers.append(machine.worker)

    def sleep(self, shortest: float, longest: float) -> None:
        """Sleep for a random time in seconds."""
        time.sleep(self.generator.uniform(shortest, longest))

    def wait_until_training(self, machine: Machine, with_checkpoint: bool) -> bool:
        """Wait until a machine's worker has a trial; with a shared checkpoint, if asked for.

        Returns:
            False if the study was done before.
        """
        query = sa.select(schema.leases.c.saved_epoch).where(schema.leases.c.worker.endswith(f":{machine.worker.pid}"))
        while not self.is_done:
            with self._connect() as connection:
                if any(epoch > 0 or not with_checkpoint for epoch in connection.execute(query).scalars()):
                    return True
            if machine.worker.poll() == 0:
                return False  # no trial was left for the worker
            self.observe()
            time.sleep(0.2)
        return False

    def observe(self) -> None:
        """Record how far the trials are and what the workers have logged since the last call.

        Restarts processes that found no database when they started. Outside of tests, Compose or a service manager does
        this, because a starting process cannot know whether there will ever be a database.
        """
        for machine in self.machines:
            if self._found_no_database(machine.worker):
                self.restart_worker(machine)
        for k, coordinator in enumerate(self.coordinators):
            if self._found_no_database(coordinator):
                self.coordinators[k] = self.start_coordinator()
        query = sa.select(schema.trials.c.number, schema.leases.c.epoch).join(
            schema.leases, schema.leases.c.trial_id == schema.trials.c.trial_id
        )
        with contextlib.suppress(sa.exc.DBAPIError), self._connect() as connection:
            for number, epoch in connection.execute(query).all():
                self._reached[number] = max(self._reached.get(number, 0), epoch)
        for index, worker in enumerate(self._workers):
            lines = self.processes.log(worker).splitlines(keepends=True)
            complete = [line for line in lines if line.endswith("\n")]
            for line in complete[self._n_read[index] :]:
                self._record_line(line)
            self._n_read[index] = len(complete)

    def finish(self, reference: dict[int, FinishedTrial]) -> FaultReport:
        """Wait for the end of the study, and compare its trials with those of a study without faults.

        Args:
            reference: Results without faults, by seed.
        """
        seconds = 120 + 30 * self.report.trials
        deadline = time.monotonic() + seconds
        while not self.is_done:
            assert time.monotonic() < deadline, "the study does not end"
            self.observe()
            time.sleep(0.2)
        for process in [*(machine.worker for machine in self.machines), *self.coordinators]:
            assert process.wait(seconds) == 0, self.processes.log(process)
        self.observe()
        trials, report = read_trials(self._storage, STUDY), self.report
        seeds = Counter(trial.user_attrs.get("seed") for trial in trials if trial.state == TrialState.COMPLETE)
        report.lost = sum(seed not in seeds for seed in range(report.trials))
        report.duplicated = max(len(trials) - report.trials, 0) + sum(n - 1 for n in self._n_ends.values())
        for seed, found in finished_by_seed(trials).items():
            expected = reference[seed]
            report.different += found.weights != expected.weights
            report.reports_lost += len(found.reports.items() ^ expected.reports.items())
        for worker in self._workers:
            assert "Traceback" not in self.processes.log(worker), self.processes.log(worker)
        return report

    def _start_machine(self, index: int) -> Machine:
        proxy, folder = Proxy(self._storage), self._folder / f"machine-{index}"
        disk = folder.with_suffix(".disk")
        disk.mkdir()
        replace_link(folder, disk)
        return Machine(folder, proxy, self._start_worker(folder, proxy))

    def _start_worker(self, folder: Path, proxy: Proxy) -> subprocess.Popen[str]:
        return self.processes.start(*WORK, "--checkpoints", folder.name, storage=proxy.url)

    def _found_no_database(self, process: subprocess.Popen[str]) -> bool:
        if process.poll() in (None, 0):
            return False
        log = self.processes.log(process)
        last = log.strip().splitlines()[-1]
        assert re.match("error: (cannot reach|cannot use|the database stopped answering)", last), log
        return True

    def _record_line(self, line: str) -> None:
        if match := re.match(r"Trial (\d+) starts(?: from epoch ([\d,]+))?", line):
            number, epoch = int(match[1]), int((match[2] or "0").replace(",", ""))
            reached = self._reached.get(number, 0)
            self.report.retrained_epochs += max(reached - epoch, 0)
            if epoch:
                self.report.resumed.append(epoch)
            else:
                self.report.restarted += reached > 0
        elif match := re.match(r"Trial (\d+) (was not solved|solved)", line):
            self._n_ends[int(match[1])] += 1

    def _connect(self) -> sa.Connection:
        return open_engine(self._storage).connect()


def replace_link(link: Path, target: Path) -> None:
    """Point a symbolic link to a target in one step, because a worker may create a folder where it finds none."""
    new = link.with_suffix(".new")
    new.symlink_to(target)
    new.replace(link)
