"""Faults of all kinds, injected into a running study at random times.

The tests do this for minutes, `bench/faults.py` for hours. Each fault breaks one part of a `FaultyCluster`, and most
repair it again after a random time.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal

from miiii_search.testing.fault_study import LEASE_SECONDS, FinishedTrial
from miiii_search.testing.faulty_cluster import FaultReport, FaultyCluster, Machine, replace_link


def kill_worker(cluster: FaultyCluster, machine: Machine) -> None:
    """Kill the machine's worker, and start another one."""
    machine.worker.kill()
    machine.worker.wait()
    cluster.restart_worker(machine)


def stop_worker(cluster: FaultyCluster, machine: Machine) -> None:
    """Send SIGTERM to the machine's worker, wait until it exits, and start another one."""
    machine.worker.terminate()
    assert machine.worker.wait(60) == 0, cluster.processes.log(machine.worker)
    cluster.restart_worker(machine)


def pause_worker(cluster: FaultyCluster, machine: Machine) -> None:
    """Suspend the machine's worker with SIGSTOP, and continue it."""
    machine.worker.send_signal(signal.SIGSTOP)
    cluster.sleep(0.5, cluster.max_outage)
    machine.worker.send_signal(signal.SIGCONT)


def break_network(cluster: FaultyCluster, machine: Machine, fault: str) -> None:
    """Break the machine's connections to the database, and repair the network. See `Proxy` for the faults."""
    machine.proxy.fault = fault
    machine.proxy.break_connections()
    cluster.sleep(0.5, cluster.max_outage)
    machine.proxy.fault = ""
    machine.proxy.break_connections()


def stop_database(cluster: FaultyCluster, _machine: Machine, mode: Literal["fast", "immediate"]) -> None:
    """Stop the database server, and start it again."""
    cluster.server.stop(mode)
    cluster.sleep(0.0, cluster.max_outage)
    cluster.server.start()


def kill_coordinator(cluster: FaultyCluster, _machine: Machine) -> None:
    """Kill one of the coordinators, and start another one."""
    index = cluster.generator.randrange(2)
    cluster.coordinators[index].kill()
    cluster.coordinators[index].wait()
    cluster.coordinators[index] = cluster.start_coordinator()


def damage_checkpoint(cluster: FaultyCluster, machine: Machine, damage: Callable[[Path], None]) -> None:
    """Kill the machine's worker, damage its newest checkpoint file, and start another worker."""
    machine.worker.kill()
    machine.worker.wait()
    files = sorted(machine.folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if files:
        damage(files[-1])
    cluster.restart_worker(machine)


def truncate(path: Path) -> None:
    """Cut off the second half of a file, as a full disk or a power failure may."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove_disk(cluster: FaultyCluster, machine: Machine) -> None:
    """Put a file in place of the machine's folder for a few seconds, so that no file in it can be read or written."""
    file = machine.folder.with_suffix(".file")
    file.write_text("not a folder")
    replace_link(machine.folder, file)
    cluster.sleep(0.5, 4.0)
    replace_link(machine.folder, machine.disk)


FAULTS: dict[str, Callable[[FaultyCluster, Machine], None]] = {
    "worker killed": kill_worker,
    "worker stopped": stop_worker,
    "worker paused": pause_worker,
    "connections cut": partial(break_network, fault="cut"),
    "connections silent": partial(break_network, fault="silence"),
    "connections half-closed": partial(break_network, fault="half-closed"),
    "connections slow": partial(break_network, fault="delay"),
    "database stopped": partial(stop_database, mode="fast"),
    "database crashed": partial(stop_database, mode="immediate"),
    "coordinator killed": kill_coordinator,
    "checkpoint truncated": partial(damage_checkpoint, damage=truncate),
    "checkpoint's bit flipped": partial(damage_checkpoint, damage=flip_bit),
    "disk gone": remove_disk,
}
"""Faults by name."""


def inject(cluster: FaultyCluster, fault: str) -> None:
    """Inject a fault while a random worker has a trial, and count it. Does nothing if the study is done before.

    Args:
        cluster: The running study.
        fault: Name of the fault, a key of `FAULTS`.
    """
    machine = cluster.generator.choice(cluster.machines)
    if not cluster.wait_until_training(machine, with_checkpoint=cluster.generator.random() < 0.5):
        return
    cluster.sleep(0.0, 2.0)
    cluster.observe()
    FAULTS[fault](cluster, machine)
    cluster.report.faults[fault] += 1
    cluster.observe()


def run_with_faults(
    folder: Path,
    reference: dict[int, FinishedTrial],
    trials: int,
    faults: Iterable[str],
    generator: random.Random,
    max_outage: float = 3 * LEASE_SECONDS,
) -> FaultReport:
    """Train a study while faults are injected one after the other, and compare its trials with those without faults.

    After the last fault, the rest of the study is trained without faults.

    Args:
        folder: Folder for logs and checkpoints.
        reference: Results without faults by seed, from `run_without_faults`.
        trials: Number of trials.
        faults: Names of the faults.
        generator: Source of random choices.
        max_outage: Longest outage or pause in seconds.
    """
    began = time.monotonic()
    with FaultyCluster(folder, trials, generator, max_outage) as cluster:
        for fault in faults:
            if cluster.is_done:
                break
            inject(cluster, fault)
        report = cluster.finish(reference)
    report.seconds = time.monotonic() - began
    return report
