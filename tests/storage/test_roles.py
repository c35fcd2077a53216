"""A worker's role: it can do all that a worker does, and can neither drop nor alter."""

from __future__ import annotations

import re
import secrets
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.cli import main
from miiii_search.deployment.invite import invite, project_name
from miiii_search.deployment.keys import Keys
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import roles
from miiii_search.storage.database import Database, open_database
from miiii_search.study.archive_export import export_study
from miiii_search.study.create import create_study
from miiii_search.testing.postgres import open_engine
from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes, read_trials, wait_for
from tests.support import everything, make_spec, together, with_all


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


@pytest.fixture
def owned(postgres_url: str) -> Iterator[Database]:
    database = open_database(postgres_url, create=True)
    yield database
    with database.transaction() as connection:  # roles are the server's, not the database's
        for role in [*roles._workers(connection), roles.WORKERS]:
            connection.execute(sa.text(f'DROP OWNED BY "{role}"'))
            connection.execute(sa.text(f'DROP ROLE "{role}"'))
    database.close()


@pytest.fixture
def role(owned: Database) -> str:
    """The storage URL of a worker's role."""
    roles.grant_workers(owned)
    name, password = f"worker_{secrets.token_hex(4)}", secrets.token_hex(8)
    assert roles.create_or_update_worker(owned, name, password)
    return owned.url.set(drivername="postgresql", username=name, password=password).render_as_string(False)


@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_worker_s_role_trains_a_study(
    role: str, owned: Database, postgres_url: str, processes: Processes, sampler: str
) -> None:
    """With reports, checkpoints, artifacts, pruning, a budget, and trials that a sampler makes."""
    settings = ("--set", f"sampler='{sampler}'", "--set", "budget.device_hours=1", "--trials", "4")
    processes.run("create", "--study", "s", *TINY, *settings, storage=postgres_url)
    roles.grant_workers(owned)
    share = ("--checkpoint-every", "0.1", "--share-every", "0.1")
    processes.run("work", "--study", "s", *share, storage=role)
    assert processes.run("status", "--study", "s", storage=role)
    trials = read_trials(postgres_url, "s")
    assert len(trials) == 4
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    with open_engine(postgres_url).connect() as connection:
        count = sa.text("SELECT count(*) FROM miiii_artifacts")
        assert connection.execute(count).scalar_one() >= 4
        connection.rollback()
        # Figures are attached to a trial, and the second time replaced.
        for _ in range(2 if sampler == "grid" else 0):
            processes.run("analyze", "--study", "s", "--trial", "0", storage=role)
            attached = connection.execute(count).scalar_one()
            connection.rollback()
            assert attached >= 10


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE trials",
        "ALTER TABLE miiii_leases ADD COLUMN x INT",
        "TRUNCATE trials",
        "DELETE FROM studies",
        "DELETE FROM trials",
        "UPDATE studies SET study_name = 'mine'",
        "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, 'a', '1')",
        "CREATE TABLE mine (x INT)",
        "CREATE ROLE another",
        "DROP DATABASE postgres",
        "COPY trials TO PROGRAM 'true'",
    ],
)
def test_what_a_worker_s_role_cannot(role: str, statement: str) -> None:
    engine = open_engine(role).execution_options(isolation_level="AUTOCOMMIT")
    with (
        engine.connect() as connection,
        pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"),
    ):
        connection.execute(sa.text(statement))


def test_what_a_worker_s_role_may_not_do_is_one_line(
    role: str, owned: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And `doctor` says it beforehand; none of it leaves anything behind."""
    study = create_study(owned, "s", make_spec())
    with_all(study)
    export_study(study, tmp_path / "s.zip")
    before = everything(owned)
    monkeypatch.setenv("MIIII_STORAGE", role)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["miiii-search", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    for arguments in (
        ("create", "--study", "t"),
        ("delete", "--study", "s", "--yes", "--force"),
        ("cleanup", "--keep-records", "0", "--yes"),
        ("import-study", f"{tmp_path}/s.zip", "--study", "t"),
        ("invite", "--revoke", "--name", "gpu2"),
    ):
        code, _, said = run(*arguments)
        assert code in (1, 2) and said.startswith("error: ") and said.count("\n") == 1, said
        if arguments[0] != "invite":
            assert "permission denied" in said and "the database's owner" in said
            assert str(sa.make_url(role).username) in said and str(sa.make_url(role).password) not in said
    code, said, _ = run("doctor", "--study", "s")
    assert "ok   it accepts the writes of a worker; create, delete, cleanup and import-study need" in said, said
    assert everything(owned) == before


def test_another_password_voids_the_first(role: str, owned: Database) -> None:
    url = sa.make_url(role)
    assert not roles.create_or_update_worker(owned, str(url.username), "another")
    with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
        open_engine(role).connect()
    open_engine(url.set(password="another").render_as_string(False)).connect().close()


def test_dropped_role_is_out_at_once(role: str, owned: Database) -> None:
    engine = open_engine(role)
    connection = engine.connect()
    roles.drop_worker(owned, str(sa.make_url(role).username))
    with pytest.raises(sa.exc.OperationalError):
        connection.execute(sa.text("SELECT 1"))
    connection.invalidate()
    connection.close()
    with pytest.raises(sa.exc.OperationalError):
        engine.connect()


ENDLESS = (*TINY, "--set", "experiment.epochs=1000000", "--set", "lease_seconds=2", "--trials", "2")


def trains(postgres_url: str) -> bool:
    """Whether a trial of study `s` has reported."""
    return any(trial.intermediate_values for trial in read_trials(postgres_url, "s"))


def errors(said: str) -> list[str]:
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(("study", "ends"), [("trained", "revoked"), ("done", "not permitted to log in")])
def test_a_worker_that_is_refused_ends(
    role: str, owned: Database, postgres_url: str, processes: Processes, study: str, ends: str
) -> None:
    """Once the time of a lease is over, with one line; whether it trains or waits for more to train."""
    is_trained = study == "trained"
    processes.run("create", "--study", "s", *(ENDLESS if is_trained else (*TINY, *ENDLESS[-4:])), storage=postgres_url)
    roles.grant_workers(owned)
    worker = processes.start("work", "--study", "s", "--keep-running", "--lanes", "1", storage=role)
    # The first trial is compiled first, which takes minutes on a busy machine.
    wait_for(
        lambda: trains(postgres_url) if is_trained else processes.has_logged(worker, "waiting for more"), seconds=300
    )
    name = str(sa.make_url(role).username)
    if ends == "revoked":
        roles.drop_worker(owned, name)
    else:
        with owned.transaction() as connection:
            connection.execute(sa.text(f'ALTER ROLE "{name}" NOLOGIN'))
        with owned.transaction() as connection:
            terminate = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = :name"
            connection.execute(sa.text(terminate), {"name": name})
    assert worker.wait(LIMIT_SECONDS) == 77, processes.log(worker)
    [error] = errors(processes.log(worker))
    assert "has refused the login" in error and name in error and "invitation" in error


def test_a_worker_that_is_refused_when_it_starts(role: str, owned: Database, processes: Processes) -> None:
    roles.drop_worker(owned, str(sa.make_url(role).username))
    worker = processes.start("work", "--study", "s", storage=role)
    assert worker.wait(LIMIT_SECONDS) == 77
    [error] = errors(processes.log(worker))
    assert "password authentication failed" in error and "invitation" in error


def test_a_refused_worker_of_a_container_waits_without_a_device(
    role: str, owned: Database, postgres_url: str, processes: Processes
) -> None:
    """To end would have it started again, for ever. Its process is replaced by one that holds nothing."""
    processes.run("create", "--study", "s", *ENDLESS, storage=postgres_url)
    roles.grant_workers(owned)
    arguments = ("work", "--study", "s", "--keep-running", "--lanes", "1", "--idle-when-refused")
    worker = processes.start(*arguments, storage=role)
    wait_for(lambda: trains(postgres_url), seconds=300)
    roles.drop_worker(owned, str(sa.make_url(role).username))
    wait_for(lambda: "sigwait" in " ".join(psutil.Process(worker.pid).cmdline()))
    [error] = errors(processes.log(worker))
    assert "waits without training" in error
    assert psutil.Process(worker.pid).num_threads() == 1
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT_SECONDS) == 0


def test_roles_that_are_no_worker_s_are_left_alone(role: str, owned: Database) -> None:
    with pytest.raises(MiiiiSearchError, match="is not a worker's"):
        roles.create_or_update_worker(owned, str(owned.url.username), "mine")
    with pytest.raises(MiiiiSearchError, match="there is no worker's role"):
        roles.drop_worker(owned, str(owned.url.username))


@pytest.mark.parametrize("name", ["", "A", "a b", 'a"b', "a;b", "-a", "x" * 42])
def test_name_that_is_none(name: str) -> None:
    with pytest.raises(MiiiiSearchError, match="--name"):
        roles.role_name(name)


def test_invitation_of_a_file(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/study.db", create=True)
    with pytest.raises(MiiiiSearchError, match="cannot be shared"):
        invite(database, Keys(tmp_path, tmp_path), "gpu2", "gpu1.lab", 5432, None)
    with pytest.raises(MiiiiSearchError, match="has no roles"):
        roles.drop_worker(database, "worker_gpu2")
    database.close()


@pytest.mark.parametrize(
    ("study", "line"),
    [("table-1", "MIIII_STUDY=table-1"), ("it's $5 #1", r"MIIII_STUDY='it\'s $5 #1'"), (None, None)],
)
def test_an_invitation_names_the_study(owned: Database, tmp_path: Path, study: str | None, line: str | None) -> None:
    """As Compose reads it: neither a variable nor a comment."""
    keys = Keys(tmp_path / "keys", tmp_path / "access")
    keys.prepare()
    lines = invite(owned, keys, "gpu2", "gpu1.lab", 5432, study).splitlines()
    assert [one for one in lines if one.startswith("MIIII_STUDY")] == ([line] if line else [])
    assert "MIIII_WORKER_NAME=gpu2" in lines


@pytest.mark.parametrize("umask", ["022", "077"])
@pytest.mark.parametrize("before", ["nothing", "a folder in the certificate's place"])
def test_what_an_invitation_has_typed(owned: Database, tmp_path: Path, umask: str, before: str) -> None:
    """The container's user can read the certificate, nobody else the password; and the project is this search's."""
    keys = Keys(tmp_path / "keys", tmp_path / "access")
    keys.prepare()
    clone = tmp_path / "clone" / "workers"
    clone.mkdir(parents=True)
    if before != "nothing":
        (clone / "ca.crt").mkdir()  # as Docker makes one where the file is missing
    printed = invite(owned, keys, "gpu2", "gpu1.lab", 5432, None)
    script = f'umask {umask}\ndocker() {{ echo docker "$@"; }}\n{printed}'
    done = subprocess.run(["sh", "-ec", script], cwd=clone.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "docker compose -f workers/docker-compose.yml up\n"
    assert (clone / "ca.crt").read_text() == keys.authority.read_text()
    assert stat.S_IMODE((clone / "ca.crt").stat().st_mode) == 0o644
    assert stat.S_IMODE((clone / ".env").stat().st_mode) == 0o600
    settings = dict(line.split("=", 1) for line in (clone / ".env").read_text().splitlines())
    assert settings.keys() == {"COMPOSE_PROJECT_NAME", "MIIII_WORKER_NAME", "MIIII_STORAGE"}
    assert settings["MIIII_WORKER_NAME"] == "gpu2"
    assert settings["MIIII_STORAGE"].startswith("postgresql://worker_gpu2:")
    assert re.fullmatch("miiii-search-gpu2-[0-9a-f]{8}", settings["COMPOSE_PROJECT_NAME"])
    other = Keys(tmp_path / "other-keys", tmp_path / "other-access")
    other.prepare()
    assert project_name(other, "gpu2") != project_name(keys, "gpu2") != project_name(keys, "gpu3")


def test_invitation_without_keys(owned: Database, role: str, tmp_path: Path) -> None:
    with pytest.raises(MiiiiSearchError, match="no keys"):
        invite(owned, Keys(tmp_path, tmp_path), "gpu2", "gpu1.lab", 5432, None)


def test_an_invitation_while_the_coordinator_starts(owned: Database) -> None:
    """Both grant the same, and the server refuses two who do so at once."""

    def start() -> bool:
        roles.grant_workers(owned)
        return roles.create_or_update_worker(owned, "worker_x", secrets.token_hex(8))

    assert sorted(together(*[start] * 4)) == [False, False, False, True]
