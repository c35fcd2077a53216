"""The compose files, for real: images built, containers killed, a database restarted, a second machine.

Needs an engine that `docker info` reaches; `make test-compose` runs these tests alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
import typer
import yaml

from miiii_search.cli import app
from miiii_search.cli.environment_variables import known_settings
from miiii_search.deployment.keys import Keys
from miiii_search.testing.processes import wait_for
from tests.integration.engine import ROOT, Project, has_compose, has_engine, inspect

pytestmark = pytest.mark.docker

needs_compose = pytest.mark.skipif(not has_compose(), reason="there is no Docker Compose here")
needs_engine = pytest.mark.skipif(not has_engine(), reason="there is no container engine here that docker info reaches")

WORKERS = "workers/docker-compose.yml"

SHORT = {
    "MIIII_DEVICE": "cpu",
    "MIIII_PRESET": "demo",
    "MIIII_STUDY": "short",
    "MIIII_LANES": "1",
    "MIIII_SET": "experiment.p=13 experiment.validation_samples=20 hyperparameters.d_model=16 experiment.epochs=100000 "
    "experiment.target_accuracy=1.0 pruning.rule=none space.dropout=[0.5] space.weight_decay=[1.0] "
    "space.grokfast_lambda=[0.0] replicates=4 lease_seconds=5",
}
"""Four trials of ten seconds or more each, which seldom end early."""


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
    url = "postgresql://worker_a:b@c:5432/miiii?sslmode=verify-full&sslrootcert=%2Fetc%2Fmiiii%2Fca.crt"
    services = yaml.safe_load(Project("valid", {"MIIII_STORAGE": url}, tmp_path, WORKERS)("config"))["services"]
    assert services["worker"]["environment"]["MIIII_STORAGE"] == url
    refused = Project("valid", {}, tmp_path, WORKERS).start("config")
    assert refused.returncode != 0
    assert "miiii-search invite" in refused.stderr


@needs_compose
def test_clones_share_nothing_but_the_machine(tmp_path: Path) -> None:
    """Each is a project of its own, named after its folder; an older installation keeps its name by a setting."""
    found = [compose_config(copy_compose_files(tmp_path / name)) for name in ("one", "Two")]
    assert [config["name"] for config in found] == ["one", "two"]
    for config in found:
        named = [volume["name"] for volume in config["volumes"].values()]
        named += [service["image"] for name, service in config["services"].items() if name != "database"]
        assert all(re.match(rf"{config['name']}[_-]", name) for name in named)
    (tmp_path / "one" / ".env").write_text("COMPOSE_PROJECT_NAME=miiii-search\n")
    kept = compose_config(tmp_path / "one")
    assert kept["volumes"]["database"]["name"] == "miiii-search_database"


@needs_compose
def test_workers_of_two_searches_share_nothing_but_the_machine(tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder = copy_compose_files(tmp_path / name)
        (folder / "workers" / ".env").write_text(f"COMPOSE_PROJECT_NAME=miiii-search-{name}\nMIIII_STORAGE=url\n")
        (folder / ".env").write_text("COMPOSE_PROJECT_NAME=miiii-search\nMIIII_LANES=7\n")
        config = compose_config(folder, "--file", WORKERS)
        assert config["name"] == f"miiii-search-{name}"
        assert config["volumes"]["worker"]["name"] == f"miiii-search-{name}_worker"
        assert config["services"]["worker"]["image"] == f"miiii-search-{name}-worker:cuda"
        assert config["services"]["worker"]["environment"]["MIIII_LANES"] == "auto"


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
    by_itself = {"MIIII_STORAGE", "MIIII_LIVENESS_FILE", "MIIII_KEYS", "MIIII_ACCESS", "MIIII_DEVICE"}
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
    """The check knows exactly the settings that `.env.example` and the guides name."""
    pages = [ROOT / ".env.example", ROOT / "README.md", ROOT / "workers" / "README.md", *ROOT.glob("docs/**/*.md")]
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
    wait_for(lambda: any(0 < trial["epoch"] < 50_000 for trial in stack.status()["running"]))
    stack("down")
    stack("up", "--detach", "--wait", "--scale", "worker=2")
    assert stack.status()["study"] == "short"
    wait_for(lambda: stack.status()["done"], seconds=900)
    assert stack.status()["counts"] == {"waiting": 0, "running": 0, "complete": 4, "pruned": 0, "fail": 0}
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
        wait_for(lambda: "for a worker that stopped while the database was unavailable" in project("logs", "worker"))
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
    for service, image in (("coordinator", f"{stack.name}-coordinator"), ("worker", f"{stack.name}-worker:cpu")):
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
    for service in ("worker", "dashboard"):
        mounts = inspect(stack.containers(service)[0]["ID"])["Mounts"]
        assert not {"keys", "socket"} & {mount["Destination"].rpartition("/")[2] for mount in mounts}


@needs_engine
@pytest.mark.timeout(1200)
def test_backup_and_restore_as_documented(stack: Project, tmp_path: Path) -> None:
    """The lines of docs/how-to/back-up-containers.md: a backup, and after all is lost the study as it was."""
    guide = (ROOT / "docs" / "how-to" / "back-up-containers.md").read_text(encoding="utf-8")
    page = guide.partition("## Everything")[2].partition("## One study")[0]
    pause, dump, status, resume, restore = re.findall(r"^ {4}(docker compose .*)$", page, re.MULTILINE)
    stop, start = "docker compose stop coordinator worker dashboard", "docker compose up --detach"
    assert f"`{stop}`" in page and f"`{start}`" in page
    stack.search("extend", "--set", "replicates=6")
    stack.shell(pause, tmp_path)
    wait_for(lambda: not stack.status()["counts"]["running"])
    before = stack.status()["counts"]
    assert before["waiting"]
    stack.shell(dump, tmp_path)
    stack.search("delete", "--study", "short", "--yes", "--force")
    assert json.loads(stack.search("list", "--json")) == []
    stack.shell(stop, tmp_path)
    stack.shell(restore, tmp_path)
    stack.shell(f"{start} --wait", tmp_path)
    assert stack.status()["counts"] == before
    assert "paused" in stack.shell(status, tmp_path)
    stack.shell(resume, tmp_path)
    wait_for(lambda: stack.status()["counts"]["running"])


def copy_compose_files(folder: Path) -> Path:
    """A folder with what Compose reads and builds of a clone, readable by its owner alone, as after umask 077."""
    built = ("Dockerfile", ".dockerignore", "LICENSE", "README.md", "pyproject.toml", "requirements", "miiii_search")
    for name in ("docker-compose.yml", WORKERS, "compose", *built):
        found = [ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*")
        for path in found:
            if path.is_file() and path.parent.name != "__pycache__":
                copy = folder / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                copy.chmod(0o600)
    return folder


def compose_config(folder: Path, *options: str) -> dict[str, Any]:
    """Return the configuration that Compose reads when it is called in this folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIIII_", "COMPOSE_"))}
    command = ["docker", "compose", *options, "config", "--format", "json"]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return config


TRY = """
import psycopg2, sys
for url in sys.stdin.read().split():
    try:
        psycopg2.connect(url).close()
        print("admitted")
    except psycopg2.OperationalError as error:
        print(" ".join(str(error).split()))
"""
"""Tries to connect with each URL that it reads, and prints what came of it."""


@needs_engine
@pytest.mark.timeout(1200)
def test_the_owner_connects_by_socket_alone(stack: Project) -> None:
    """From nowhere on a network, even with a password; a worker's role connects from all the same places."""
    port, network = int(stack.settings["MIIII_DATABASE_PORT"]), f"{stack.name}_elsewhere"
    stack("exec", "--no-TTY", "database", "psql", "-qU", "miiii", "-c", "ALTER ROLE miiii PASSWORD 'known'")
    worker = sa.make_url(stack("exec", "--no-TTY", "worker", "cat", "/run/miiii/access/worker.url").strip())
    image = f"{stack.name}-coordinator"
    elsewhere = ("docker", "run", "--rm", "-i", "--network", network, "--entrypoint", "python3", image, "-c", TRY)
    inside = ("docker", "exec", "-i", stack.containers("worker")[0]["ID"], "python3", "-c", TRY)
    host = (sys.executable, "-c", TRY)
    sides: list[tuple[tuple[str, ...], str, int]] = [
        (inside, "database", 5432),
        (host, "127.0.0.1", port),
        (host, gateway_address(), port),
        (host, address_of(stack.containers("database")[0]["ID"]), 5432),
        (elsewhere, gateway_address(), port),
    ]
    try:
        subprocess.run(["docker", "network", "create", network], check=True, capture_output=True)
        with another_machine() as (enter, host_address):
            if enter:
                sides.append(((*enter, *host), host_address, port))
            for command, address, at in sides:
                given = worker.set(host=address, port=at).set(query={"sslmode": "require"})
                owner = given.set(username="miiii", password="known")
                plain = [url.set(query={"sslmode": "disable"}) for url in (owner, given)]
                urls = "\n".join(url.render_as_string(hide_password=False) for url in (owner, *plain, given))
                done = subprocess.run(command, input=urls, capture_output=True, text=True, timeout=600)
                assert done.returncode == 0, done.stderr
                by_tls, unencrypted, worker_unencrypted, admitted = done.stdout.splitlines()
                assert "pg_hba.conf rejects connection" in by_tls, (command, address)
                assert "pg_hba.conf rejects connection" in unencrypted, (command, address)
                assert "no encryption" in worker_unencrypted, (command, address)
                assert admitted == "admitted", (command, address)
    finally:
        subprocess.run(["docker", "network", "rm", network], capture_output=True)
    assert stack.status()["study"] == "short"  # as the owner, by the socket


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
        WORKERS,
    )
    absent = tmp_path / "absent.crt"
    without = Project("miiii-second", dict(second.settings) | {"MIIII_CA": str(absent)}, tmp_path / "without", WORKERS)
    try:
        refused = without.start("up", "--detach")
        assert refused.returncode != 0
        assert f"bind source path does not exist: {absent}" in refused.stderr
        assert not absent.exists()
        second("up", "--detach")
        wait_for(lambda: json.loads(stack.search("status", "--study", "second", "--json"))["done"], seconds=300)
        assert "was trained" not in second("logs", "worker")
        assert url.split(":")[2].split("@")[0] not in second("logs", "worker")
        stack.search("invite", "--revoke", "--name", "second")
        with pytest.raises(psycopg2.OperationalError):
            connect()
        wait_for(lambda: "waits without training" in second("logs", "worker"))
        [worker] = second.containers("worker")
        assert (worker["State"], inspect(worker["ID"])["RestartCount"]) == ("running", 0)
        assert second("logs", "worker").count("error: ") == 1
        began = time.monotonic()
        second("stop", "worker")
        assert time.monotonic() - began < 30
        assert [c["ExitCode"] for c in second.containers("worker")] == [0]
    finally:
        second.close()


@needs_engine
@pytest.mark.timeout(600)
def test_a_volume_that_is_older_than_its_keys(tmp_path: Path) -> None:
    """The volume was made by the plain image, without TLS and with an unknown password.

    Only the owner of the clone can read its files.
    """
    project = Project("miiii-older", SHORT, tmp_path)
    files = copy_compose_files(tmp_path / "private")
    private = Project("miiii-older", SHORT, tmp_path / "private", str(files / "docker-compose.yml"))
    volume, plain = f"{project.name}_database", f"{project.name}-plain"
    old = ("docker", "run", "--detach", "--rm", "--name", plain)
    settings = ("-e", "POSTGRES_USER=miiii", "-e", "POSTGRES_PASSWORD=forgotten")
    ready = ("docker", "exec", plain, "pg_isready", "-h", "127.0.0.1", "-U", "miiii")
    try:
        project("build", "check", "coordinator", seconds=1800)
        project("create", "database")  # makes the volume; does not build
        run = (*old, *settings, "-v", f"{volume}:/var/lib/postgresql/data", "postgres:17-trixie")
        subprocess.run(run, check=True, capture_output=True)
        wait_for(lambda: subprocess.run(ready, capture_output=True).returncode == 0)
        subprocess.run(["docker", "stop", plain], check=True, capture_output=True)
        private("up", "--detach", "--wait", "coordinator")
        assert project.status()["counts"]["waiting"] == 4
        refused = (
            "import psycopg2\n"
            "for mode in ('disable', 'require'):\n"
            "    try: psycopg2.connect(host='database', user='miiii', password='forgotten', sslmode=mode)\n"
            "    except psycopg2.OperationalError as error: print(error)"
        )
        said = project("exec", "--no-TTY", "coordinator", "python", "-c", refused)
        assert said.count("pg_hba.conf rejects connection") == 2
    finally:
        subprocess.run(["docker", "rm", "--force", plain], capture_output=True)
        project.close()


def second_settings() -> tuple[str, ...]:
    settings = (
        "experiment.p=13",
        "experiment.validation_samples=20",
        "experiment.epochs=64",
        "budget.trials=2",
        "lease_seconds=5",
    )
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


def address_of(container: str) -> str:
    """A container's address in its project's network."""
    [network] = inspect(container)["NetworkSettings"]["Networks"].values()
    address: str = network["IPAddress"]
    return address


@contextmanager
def another_machine() -> Iterator[tuple[tuple[str, ...], str]]:
    """A network namespace with a cable to this one, and this one's address there; nothing without the right to."""
    name, near, far = f"miiii-{os.getpid()}", f"near{os.getpid()}"[:15], f"far{os.getpid()}"[:15]
    here, there = (f"198.18.{os.getpid() % 256}.{number}" for number in (1, 2))  # reserved for tests of networks
    commands = (
        f"ip netns add {name}",
        f"ip link add {near} type veth peer name {far} netns {name}",
        f"ip address add {here}/30 dev {near}",
        f"ip link set {near} up",
        f"ip -n {name} address add {there}/30 dev {far}",
        f"ip -n {name} link set {far} up",
    )
    try:
        able = shutil.which("ip") and all(
            subprocess.run(command.split(), capture_output=True).returncode == 0 for command in commands
        )
        yield (("ip", "netns", "exec", name), here) if able else ((), "")
    finally:
        if shutil.which("ip"):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def gateway_address() -> str:
    """The engine's machine as containers of any network reach it."""
    gateway: str = inspect("bridge")["IPAM"]["Config"][0]["Gateway"]
    return gateway
