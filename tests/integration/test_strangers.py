"""Attacks by strangers: reading a password, and files or names that execute something."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.cli.exit_codes import REFUSED
from miiii_search.storage import schema
from miiii_search.storage.database import open_database
from miiii_search.study.open import open_study
from miiii_search.testing.postgres import DatabaseServer, open_engine
from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes, clean_environment, read_trials, wait_for
from miiii_search.training.checkpoint import FORMAT
from miiii_search.worker.checkpoints import LocalCheckpoints
from tests.support import all_tables

PASSWORD = "s3cret@of/theirs:50%"


@pytest.fixture
def role_url(postgres_server: DatabaseServer) -> Iterator[str]:
    """A database of a role of its own, whose password needs quoting in a URL."""
    url = postgres_server.create_database()
    role = f"{sa.make_url(url).database}_role"
    with open_engine(postgres_server.url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD.replace('%', '%%')}'")
        connection.exec_driver_sql(f"ALTER DATABASE {sa.make_url(url).database} OWNER TO {role}")
    yield sa.make_url(url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)
    postgres_server.drop_database(url)
    with open_engine(postgres_server.url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"DROP ROLE {role}")


def test_the_password_is_nowhere(processes: Processes, role_url: str) -> None:
    """Not in what any command says, also when it fails, nor in any file or row that is written, nor in any page."""
    said = processes.run("create", "--preset", "demo", "--study", "s", *TINY, "--trials", "3", storage=role_url)
    page = processes.start("dashboard", "--port", "0", storage=role_url)
    coordinator = processes.start("coordinate", "--study", "s", storage=role_url)
    worker = processes.start("work", "--study", "s", "--checkpoint-every", "0.1", storage=role_url)
    for process in (worker, coordinator):
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
        said += processes.log(process)
    for command in (["status"], ["status", "--json"], ["best"], ["best", "--out", "best.json"], ["doctor"]):
        said += processes.run(*command, "--study", "s", storage=role_url)
    address = wait_for(lambda: re.search(r"dashboard: (http://\S+)", processes.log(page)))[1]
    pages = [read(address + path) for path in ("dashboard", "api/studies", "api/studies/1", "api/meta")]
    wrong = role_url.replace("/test_", "/test_none_")
    for failing in (["status"], ["work"], ["dashboard", "--port", "0"], ["create"]):
        process = processes.start(*failing, storage=wrong)
        # A database that is not there refuses a worker, which a scheduler should be able to tell.
        assert process.wait(LIMIT_SECONDS) == (REFUSED if failing == ["work"] else 2)
        said += processes.log(process)
    said += processes.log(page)
    written = b"".join(path.read_bytes() for path in processes.folder.rglob("*") if path.is_file())
    with open_engine(role_url).connect() as connection:
        rows = "".join(repr(connection.execute(sa.select(table)).all()) for table in all_tables())
    secrets = {PASSWORD, urllib.parse.quote(PASSWORD, safe=""), urllib.parse.quote_plus(PASSWORD), "s3cret"}
    for secret in secrets:
        assert secret not in said + rows
        assert secret.encode() not in written + b"".join(pages)
    assert "s3cret" in role_url and len(written) > 2000 and len(rows) > 10_000  # there was something to look at


def read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=600) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_checkpoint_is_never_executed(processes: Processes, tmp_path: Path) -> None:
    """Pickles with the right checksum, in the folder and in the database: skipped, and logged."""
    trap = tmp_path / "sprung"
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run("create", "--preset", "demo", "--study", "s", *TINY, "--trials", "1", storage=storage)
    database = open_database(storage)
    folder = LocalCheckpoints(tmp_path / "here", open_study(database, "s")).folder
    folder.mkdir(parents=True)
    objects = io.BytesIO()
    np.savez(objects, allow_pickle=True, a=np.asarray([Trap(trap)], dtype=object))
    for epoch, body in enumerate((pickle.dumps(Trap(trap)), objects.getvalue()), start=8):
        data = FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        (folder / f"trial-1.epoch-{epoch}.ckpt").write_bytes(data)
    with database.transaction() as connection:
        connection.execute(sa.insert(schema.checkpoints).values(trial_id=1, epoch=99, data=data))
    database.close()
    again = processes.start(*("work", "--study", "s", "--checkpoints", "here"), storage=storage)
    assert again.wait(LIMIT_SECONDS) == 0, processes.log(again)
    assert processes.log(again).count("a checkpoint was skipped") == 3
    assert not trap.exists()
    assert [t.state for t in read_trials(storage, "s")] == [TrialState.COMPLETE]


def test_a_name_stays_a_name(processes: Processes, tmp_path: Path) -> None:
    """A study's name is only text in the name of the export, in its content and in the folder of checkpoints."""
    name = '../../out"""\' $(touch sprung) `touch sprung`; touch sprung'
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    processes.folder = inside
    storage = f"sqlite:///{inside}/study.db"
    up = ("up", "--preset", "demo", "--study", name, "--no-dashboard", *TINY, "--trials", "1")
    said = processes.run(*up, storage=storage)
    [exported] = inside.glob("*-best.toml")
    # What it says to type next is what a shell takes, with this file, whatever is in its name.
    hints = [line.strip() for line in said.partition("Next:")[2].splitlines() if line.startswith("  ")]
    [train] = [line for line in hints if " train " in line]
    environment = clean_environment(storage) | processes.environment
    done = subprocess.run(["sh", "-c", train], cwd=inside, env=environment, capture_output=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    assert (inside / "runs" / "best" / "config.toml").is_file()
    assert "identical" in processes.run("train", exported.name, "--out", "run", storage=storage)
    processes.run("best", "--study", name, "--out", "best.json", storage=storage)
    assert "identical" in processes.run("train", "best.json", "--out", "other", storage=storage)
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "state"}  # checkpoints lie in the latter
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert not list(tmp_path.rglob("sprung"))
