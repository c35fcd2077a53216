"""The compose files, for real: images built, containers killed, a database restarted, a second machine.

Needs an engine that `docker info` reaches; `make test-compose` runs these tests alone.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import typer
import yaml

from miiii_search.cli import app
from miiii_search.cli.settings import known_settings
from miiii_search.service.keys import Keys
from tests.integration.engine import ROOT, Project, has_compose, has_engine, inspect
from tests.integration.processes import wait_for

needs_compose = pytest.mark.skipif(not has_compose(), reason="there is no Docker Compose here")
needs_engine = pytest.mark.skipif(not has_engine(), reason="there is no container engine here that docker info reaches")

SHORT = {
    "MIIII_DEVICE": "cpu",
    "MIIII_PRESET": "demo",
    "MIIII_STUDY": "short",
    "MIIII_LANES": "1",
    "MIIII_SET": "experiment.p=13 experiment.validation_samples=20 hyperparameters.d_model=16 experiment.epochs=200000 "
    "experiment.target_accuracy=1.0 pruning.rule=none space.dropout=[0.5] space.weight_decay=[1.0] "
    "space.grokfast_lambda=[0.0] replicates=8 lease_seconds=5",
}
"""Eight trials of ten seconds or more each, which seldom end early."""


LONG = f"{SHORT['MIIII_SET']} lease_seconds=3600"
"""The same with leases that outlast any test: what comes back was handed back."""


@needs_compose
@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("database", ["private", "published"])
def test_every_file_is_valid(device: str, database: str, tmp_path: Path) -> None:
    settings = {"MIIII_DEVICE": device, "MIIII_DATABASE": database}
    services = yaml.safe_load(Project("valid", settings, tmp_path)("config"))["services"]
    assert set(services) == {"check", "keys", "database", "coordinator", "worker", "dashboard"}
    assert ("ports" in services["database"]) == (database == "published")
    assert [port["host_ip"] for port in services["dashboard"]["ports"]] == ["127.0.0.1"]
    assert ("deploy" in services["worker"]) == (device == "cuda")
    assert ("deploy" in services["check"]) == (device == "cuda")
    for name in ("check", "keys", "coordinator", "worker", "dashboard"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]


@needs_compose
def test_the_other_machine_s_file_is_valid(tmp_path: Path) -> None:
    file = "workers/docker-compose.yml"
    url = "postgresql://worker_a:b@c:5432/miiii?sslmode=verify-full&sslrootcert=%2Fetc%2Fmiiii%2Fca.crt"
    services = yaml.safe_load(Project("valid", {"MIIII_STORAGE": url}, tmp_path, file)("config"))["services"]
    assert services["worker"]["environment"]["MIIII_STORAGE"] == url
    refused = Project("valid", {}, tmp_path, file).start("config")
    assert refused.returncode != 0
    assert "miiii-search invite" in refused.stderr


@needs_compose
def test_example_of_settings_sets_nothing(tmp_path: Path) -> None:
    """Every line of `.env.example` is a comment, and what it names is a setting of the files."""
    text = (ROOT / ".env.example").read_text()
    assert not [line for line in text.splitlines() if line and not line.startswith("#")]
    named = set(re.findall(r"^#([A-Z0-9_]+)=", text, re.MULTILINE))
    files = [*ROOT.glob("compose/*.yml"), ROOT / "docker-compose.yml"]
    used = set(re.findall(r"\$\{([A-Z0-9_]+)|^ +(CUDA_VISIBLE_DEVICES):", "".join(f.read_text() for f in files), re.M))
    assert named == {a or b for a, b in used} - {"GIT_COMMIT"}


READ_BY = {
    "coordinate": "coordinator",
    "work": "worker",
    "dashboard": "dashboard",
}
"""The service that runs each command."""


@needs_compose
def test_every_setting_arrives(tmp_path: Path) -> None:
    """Whatever a command reads from the environment, its service passes on from `.env`, or sets by itself."""
    by_itself = {"MIIII_STORAGE", "MIIII_PULSE", "MIIII_KEYS", "MIIII_ACCESS", "MIIII_DEVICE"}
    (tmp_path / "password").write_text("secret")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    read = {
        (service, parameter.envvar)
        for name, service in READ_BY.items()
        for parameter in commands[name].params
        if parameter.envvar and parameter.envvar not in by_itself
    }
    read |= {("worker", "MIIII_ANY_VERSION"), ("dashboard", "MIIII_DASHBOARD_PASSWORD")}
    settings = {name: f"value-of-{name}" for _, name in read}
    services = yaml.safe_load(Project("valid", {**settings, "MIIII_DEVICE": "cpu"}, tmp_path)("config"))["services"]
    for service, name in read:
        assert services[service]["environment"].get(name) == settings[name], f"{name} does not reach {service}"
    password = {"MIIII_DEVICE": "cpu", "MIIII_DASHBOARD_PASSWORD_FILE": str(tmp_path / "password")}
    found = yaml.safe_load(Project("valid", password, tmp_path)("config"))
    at = found["services"]["dashboard"]["environment"]["MIIII_DASHBOARD_PASSWORD_FILE"]
    assert at == "/run/secrets/" + found["services"]["dashboard"]["secrets"][0]["source"]
    assert found["secrets"]["dashboard-password"]["file"] == str(tmp_path / "password")


@needs_compose
def test_documented_settings_are_known() -> None:
    """What `.env.example` and the guides name is what the check knows."""
    pages = [ROOT / ".env.example", ROOT / "README.md", ROOT / "workers" / "README.md", *ROOT.glob("docs/*.md")]
    named = {name for page in pages for name in re.findall(r"MIIII_[A-Z_]*[A-Z]", page.read_text())}
    assert named <= known_settings()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A search that runs, with its database published at a free port."""
    with socket.socket() as free, socket.socket() as page:
        free.bind(("", 0))
        page.bind(("", 0))
        ports = {
            "MIIII_DATABASE": "published",
            "MIIII_DATABASE_PORT": str(free.getsockname()[1]),
            "MIIII_DASHBOARD": f"127.0.0.1:{page.getsockname()[1]}",
        }
    project = Project("miiii-test", SHORT | ports, tmp_path_factory.mktemp("compose"))
    try:
        project("build", seconds=1800)
        began = time.monotonic()
        project("up", "--detach", "--wait")
        wait_for(lambda: project.status()["counts"]["running"])
        print(f"first trial after {time.monotonic() - began:.1f} s")
        yield project
    finally:
        print(project("logs", "--no-color", "--tail", "60"))
        project.close()


@needs_engine
@pytest.mark.timeout(2400)
def test_a_search_through_all_that_happens_to_it(stack: Project, tmp_path: Path) -> None:
    """Scaled, a worker killed, the database restarted, taken down and up again: every trial ends once."""
    stack("up", "--detach", "--wait", "--scale", "worker=3")
    wait_for(lambda: stack.status()["counts"]["running"] == 3)
    killed = stack.containers("worker")[0]["ID"]
    subprocess.run(["docker", "kill", killed], check=True, capture_output=True)
    wait_for(lambda: "went back to the queue" in stack("logs", "coordinator"))
    stack("restart", "database")
    wait_for(lambda: stack.start("exec", "--no-TTY", "coordinator", "miiii-search", "status").returncode == 0)
    said = stack("logs", "worker")
    # One must have begun, and have so much left that it does not end before it is stopped.
    wait_for(lambda: any(0 < trial["epoch"] < 100_000 for trial in stack.status()["running"]))
    stack("down")
    stack("up", "--detach", "--wait", "--scale", "worker=2")
    assert stack.status()["study"] == "short"
    wait_for(lambda: stack.status()["done"], seconds=900)
    assert stack.status()["counts"] == {"waiting": 0, "running": 0, "complete": 8, "pruned": 0, "fail": 0}
    said += stack("logs", "worker")
    assert re.search(r"starts from epoch [1-9]", said), f"no trial was resumed:\n{said}"
    # The service stays when its study is done: what asks it finds it there.
    assert {c["State"] for s in ("coordinator", "worker") for c in stack.containers(s)} == {"running"}
    exported = json.loads(stack.search("best", "--format", "json"))
    assert exported["provenance"]["study"] == "short"
    retrain = "cat > /tmp/best.json && miiii-search train /tmp/best.json --out /tmp/run"
    command = ("docker", "exec", "--interactive", stack.containers("worker")[0]["ID"], "sh", "-c", retrain)
    done = subprocess.run(command, input=json.dumps(exported), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "identical" in done.stdout


@needs_engine
@pytest.mark.timeout(1200)
def test_wrong_settings_stop_nothing(stack: Project, tmp_path: Path) -> None:
    """They end `up` with the line that names them; what is no setting is named in the log, and does nothing else."""
    before = {c["ID"] for service in ("database", "coordinator", "worker") for c in stack.containers(service)}
    for name, value, said in (
        ("MIIII_SET", "experiment.pp=13", "did you mean `experiment.p`?"),
        ("MIIII_METRICS_PORT", "many", "MIIII_METRICS_PORT"),
        ("MIIII_DASHBOARD", "0.0.0.0:8080", "MIIII_DASHBOARD_PASSWORD"),
    ):
        wrong = stack.with_settings({name: value}, tmp_path).start("up", "--detach")
        assert wrong.returncode != 0
        assert said in wrong.stderr + wrong.stdout
    assert before == {c["ID"] for service in ("database", "coordinator", "worker") for c in stack.containers(service)}
    typo = stack.with_settings({"MIIII_TRAILS": "64"}, tmp_path)
    assert "did you mean MIIII_TRIALS?" in typo.start("run", "--rm", "check").stderr


@needs_engine
@pytest.mark.timeout(1200)
def test_without_a_gpu_nothing_is_built_or_created(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a GPU here")
    project = Project("miiii-no-gpu", {}, tmp_path)
    try:
        refused = project.start("up", "--detach")
        assert refused.returncode != 0
        assert "put MIIII_DEVICE=cpu into .env" in refused.stderr + refused.stdout
        assert project("ps", "--all", "--quiet") == ""
    finally:
        project.close()


@needs_engine
@pytest.mark.timeout(1200)
def test_database_and_worker_are_replaced_together(tmp_path: Path) -> None:
    """Compose stops the database first; the next worker hands back what the last one could not, and goes on with it.

    Then the study is deleted: restarts do not create it again, and `create` does, with the settings in `.env`.
    """
    project = Project("miiii-replaced", SHORT | {"MIIII_SET": LONG, "MIIII_DASHBOARD": "127.0.0.1:0"}, tmp_path)
    try:
        project("build", seconds=1800)
        project("up", "--detach", "--wait")
        wait_for(lambda: any(trial["epoch"] for trial in project.status()["running"]))
        project.with_settings(
            {"MIIII_DATABASE": "published", "MIIII_DATABASE_PORT": "0", "MIIII_LANES": "2"}, tmp_path
        )("up", "--detach", "--wait")
        wait_for(lambda: "for a worker that stopped while the database was away" in project("logs", "worker"))
        wait_for(lambda: project.status()["counts"]["running"] == 2)
        project.search("delete", "--study", "short", "--yes", "--force")
        project("restart", "coordinator", "worker")
        wait_for(lambda: "waiting: study `short` was deleted" in project("logs", "--since", "20s", "coordinator"))
        wait_for(lambda: "waiting: study `short` was deleted" in project("logs", "worker"))
        assert json.loads(project.search("list", "--json")) == []
        project.search("create")
        wait_for(lambda: project.status()["counts"]["running"])
    finally:
        print(project("logs", "--no-color", "--tail", "60"))
        project.close()


@needs_engine
@pytest.mark.timeout(1200)
def test_containers_may_do_little(stack: Project) -> None:
    for service, image in (("coordinator", "miiii-search-coordinator"), ("worker", "miiii-search-worker:cpu")):
        container = stack.containers(service)[0]["ID"]
        found = inspect(container)
        assert found["Config"]["User"] == "10001:10001"
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert found["State"]["Health"]["Status"] == "healthy"
        assert inspect(image)["Config"]["Labels"]["org.opencontainers.image.title"] == "miiii-search"
        tools = "for tool in gcc cc make git; do command -v $tool; done; ls /opt/miiii/bin/pip* 2>/dev/null"
        listed = subprocess.run(["docker", "exec", container, "sh", "-c", tools], capture_output=True, text=True)
        assert listed.stdout == ""
    jax = 'import importlib.util as u; print(*[n for n in ("jax", "flax", "optax", "scipy") if u.find_spec(n)])'
    assert stack("exec", "--no-TTY", "coordinator", "python", "-c", jax).strip() == ""
    # Nothing that could connect as the database's owner or sign certificates is within a worker's reach.
    assert "keys" not in {mount["Destination"].rpartition("/")[2] for mount in found["Mounts"]}
    logs = stack("logs")
    owner = stack("exec", "--no-TTY", "coordinator", "cat", "/run/miiii/keys/owner.password")
    assert len(owner) > 20
    assert owner not in logs


@needs_engine
@pytest.mark.timeout(1200)
def test_a_second_machine(stack: Project, tmp_path: Path) -> None:
    """With what `invite` prints, another project on another network trains; without, the server refuses."""
    host = gateway_address()
    printed = stack.search(
        "invite", "--host", host, "--name", "second", "--port", stack.settings["MIIII_DATABASE_PORT"]
    )
    [authority] = re.findall(r"-----BEGIN.*?END CERTIFICATE-----\n", printed, re.DOTALL)
    [url] = re.findall(r"^MIIII_STORAGE=(.*)$", printed, re.MULTILINE)
    certificate = tmp_path / "ca.crt"
    certificate.write_text(authority)
    certificate.chmod(0o644)

    def connect(**changes: Any) -> psycopg2.extensions.connection:
        return psycopg2.connect(url.replace("%2Fetc%2Fmiiii%2Fca.crt", str(certificate)), **changes)

    wait_for(lambda: is_named(connect))
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(password="wrong")
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        connect(sslmode="disable")
    other = Keys(tmp_path / "other-keys", tmp_path / "other-access")
    other.prepare()
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        connect(sslrootcert=str(other.authority))
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        connect(host="host.invalid", hostaddr=host)
    for forbidden in (
        "DROP TABLE trials",
        "ALTER TABLE trials ADD COLUMN x INT",
        "TRUNCATE trials",
        "DELETE FROM studies",
        "CREATE TABLE mine (x INT)",
        "CREATE ROLE another",
        "COPY trials TO PROGRAM 'true'",
    ):
        connection = connect()
        with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(forbidden)
        connection.close()

    stack("stop", "worker")
    stack.search("create", "--study", "second", "--preset", "demo", *second_settings())
    second = Project(
        "miiii-second",
        {"MIIII_DEVICE": "cpu", "MIIII_STORAGE": url, "MIIII_STUDY": "second", "MIIII_CA": str(certificate)},
        tmp_path,
        "workers/docker-compose.yml",
    )
    try:
        second("up", "--detach")
        wait_for(lambda: json.loads(stack.search("status", "--study", "second", "--json"))["done"], seconds=300)
        assert "was trained" not in second("logs", "worker")
        assert url.split(":")[2].split("@")[0] not in second("logs", "worker")
        began = time.monotonic()
        second("stop", "worker")
        assert time.monotonic() - began < 30
        assert [c["ExitCode"] for c in second.containers("worker")] == [0]
    finally:
        second.close()
    stack.search("invite", "--revoke", "--name", "second")
    with pytest.raises(psycopg2.OperationalError):
        connect()


@needs_engine
@pytest.mark.timeout(600)
def test_a_volume_that_is_older_than_its_keys(tmp_path: Path) -> None:
    """Made by the plain image, without TLS and with a password that nobody knows any more."""
    project = Project("miiii-older", SHORT, tmp_path)
    volume, plain = f"{project.name}_database", f"{project.name}-plain"
    old = ("docker", "run", "--detach", "--rm", "--name", plain)
    settings = ("-e", "POSTGRES_USER=miiii", "-e", "POSTGRES_PASSWORD=forgotten")
    ready = ("docker", "exec", plain, "pg_isready", "-h", "127.0.0.1", "-U", "miiii")
    try:
        project("create", "database")  # makes the volume
        run = (*old, *settings, "-v", f"{volume}:/var/lib/postgresql/data", "postgres:17-trixie")
        subprocess.run(run, check=True, capture_output=True)
        wait_for(lambda: subprocess.run(ready, capture_output=True).returncode == 0)
        subprocess.run(["docker", "stop", plain], check=True, capture_output=True)
        project("up", "--detach", "--wait", "coordinator")
        assert project.status()["counts"]["waiting"] == 8
        refused = (
            "import psycopg2\n"
            "for mode in ('disable', 'require'):\n"
            "    try: psycopg2.connect(host='database', user='miiii', password='forgotten', sslmode=mode)\n"
            "    except psycopg2.OperationalError as error: print(error)"
        )
        said = project("exec", "--no-TTY", "coordinator", "python", "-c", refused)
        assert "no encryption" in said
        assert "password authentication failed" in said
    finally:
        subprocess.run(["docker", "rm", "--force", plain], capture_output=True)
        project.close()


def second_settings() -> tuple[str, ...]:
    settings = ("experiment.p=13", "experiment.validation_samples=20", "experiment.epochs=64", "budget.trials=2")
    return tuple(part for setting in settings for part in ("--set", setting))


def is_named(connect: Any) -> bool:
    """Whether the server shows the certificate that names this host: it follows within seconds."""
    try:
        connect().close()
    except psycopg2.OperationalError as error:
        if "does not match host name" in str(error) or "certificate" in str(error):
            return False
        raise
    return True


def gateway_address() -> str:
    """The engine's machine as containers of any network reach it."""
    gateway: str = inspect("bridge")["IPAM"]["Config"][0]["Gateway"]
    return gateway
