"""Another version on a study, and the commands of docs/how-to/back-up.md, typed as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from miiii_search.storage import study_attrs
from miiii_search.storage.database import open_database
from miiii_search.storage.study_attrs import ID_KEY, PROGRAMS_KEY, SPEC_KEY, VERSION_KEY
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.testing.postgres import DatabaseServer
from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes, clean_environment, read_trials, wait_for
from miiii_search.training.version import TRAINING_PROGRAM
from tests.support import claim, end, make_spec

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "back-up.md"
OTHER_PROGRAM = TRAINING_PROGRAM + 98


def create(processes: Processes, storage: str) -> None:
    processes.run("create", "--preset", "demo", "--study", "demo", *TINY, "--trials", "1", storage=storage)


def change(storage: str, values: dict[str, object], remove: tuple[str, ...] = ()) -> None:
    """Makes the study one of another version."""
    database = open_database(storage)
    study = open_study(database, "demo")
    with database.transaction() as connection:
        study_attrs.remove(connection, study.study_id, remove)
        study_attrs.write(connection, study.study_id, values)
    database.close()


def test_a_study_of_an_older_version_goes_on(processes: Processes, storage_url: str) -> None:
    """One of a version that recorded neither programs nor ids: nothing has to be set."""
    create(processes, storage_url)
    change(storage_url, {VERSION_KEY: "0.0.1"}, (PROGRAMS_KEY, ID_KEY))
    processes.run("work", "--lanes", "1", "--study", "demo", storage=storage_url)
    [trial] = read_trials(storage_url, "demo")
    assert trial.state == TrialState.COMPLETE
    assert (trial.user_attrs["training_program"], trial.user_attrs["study_version"]) == (TRAINING_PROGRAM, "0.0.1")


def test_a_study_of_another_program_waits(processes: Processes, tmp_path: Path) -> None:
    """And everyone says so, until one setting lets it go on."""
    storage = f"sqlite:///{tmp_path}/study.db"
    create(processes, storage)
    change(storage, {VERSION_KEY: "9.9.9", PROGRAMS_KEY: [OTHER_PROGRAM]})
    refused = processes.start("work", "--lanes", "1", "--study", "demo", storage=storage)
    pulse = tmp_path / "pulse"
    worker = processes.start(
        "work", "--lanes", "1", "--study", "demo", "--keep-running", "--liveness-file", str(pulse), storage=storage
    )
    coordinator = processes.start("coordinate", "--study", "demo", storage=storage)
    assert refused.wait(LIMIT_SECONDS) == 2
    [line] = processes.log(refused).splitlines()
    for words in ("miiii-search 9.9.9", f"training program {OTHER_PROGRAM}", "--any-version", "MIIII_ANY_VERSION=1"):
        assert words in line
    wait_for(lambda: processes.has_logged(worker, "waiting: study `demo` was created by miiii-search 9.9.9"))
    wait_for(lambda: processes.has_logged(coordinator, "MIIII_ANY_VERSION"))
    wait_for(pulse.exists)  # it is alive, for a healthcheck
    status = json.loads(processes.run("status", "--study", "demo", "--json", storage=storage))
    assert "9.9.9" in status["waits"] and not status["done"]
    assert "waiting for another version" in processes.run("status", "--study", "demo", storage=storage)
    [listed] = json.loads(processes.run("list", "--json", storage=storage))
    assert listed["state"] == "waiting for another version"
    assert worker.poll() is None and processes.log(worker).count("waiting:") == 1

    processes.environment["MIIII_ANY_VERSION"] = "1"
    processes.run("work", "--lanes", "1", "--study", "demo", storage=storage)
    del processes.environment["MIIII_ANY_VERSION"]
    [trial] = read_trials(storage, "demo")
    assert trial.state == TrialState.COMPLETE and trial.user_attrs["training_program"] == TRAINING_PROGRAM
    assert coordinator.wait(LIMIT_SECONDS) == 0
    # The worker that waited has seen that it may go on, and knows that the study is done.
    wait_for(lambda: processes.has_logged(worker, "is done; waiting for more"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT_SECONDS) == 0
    status = json.loads(processes.run("status", "--study", "demo", "--json", storage=storage))
    assert status["waits"] is None and status["done"]


def test_a_study_that_cannot_be_read_is_waited_for(processes: Processes, tmp_path: Path) -> None:
    """A spec of a later format: the containers' commands wait, and end well when they are told to."""
    storage = f"sqlite:///{tmp_path}/study.db"
    create(processes, storage)
    change(storage, {VERSION_KEY: "9.9.9", SPEC_KEY: {"format": 99}})
    stay = [
        processes.start("work", "--lanes", "1", "--study", "demo", "--keep-running", storage=storage),
        processes.start("coordinate", "--study", "demo", "--keep", "--keep-running", storage=storage),
    ]
    for process in stay:
        wait_for(partial(processes.has_logged, process, "waiting: study `demo` was created by"))
        assert "format 99" in processes.log(process) and process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    failed = processes.start("status", "--study", "demo", storage=storage)
    assert failed.wait(LIMIT_SECONDS) == 2 and "9.9.9" in processes.log(failed)


def test_a_newer_version_changes_a_study_meanwhile(processes: Processes, tmp_path: Path) -> None:
    """Processes that run already wait as well, and go on once they can read the study again."""
    storage = f"sqlite:///{tmp_path}/study.db"
    create(processes, storage)
    processes.run("pause", "--study", "demo", storage=storage)
    worker = processes.start("work", "--lanes", "1", "--study", "demo", "--keep-running", storage=storage)
    coordinator = processes.start("coordinate", "--study", "demo", "--keep", "--keep-running", storage=storage)
    wait_for(lambda: processes.has_logged(worker, "is paused"))
    wait_for(lambda: processes.has_logged(coordinator, "is paused"))
    database = open_database(storage)
    study_id = open_study(database, "demo").study_id
    with database.engine.connect() as connection:
        spec = study_attrs.read(connection, study_id, SPEC_KEY)[SPEC_KEY]
    with database.transaction() as connection:
        study_attrs.write(connection, study_id, {SPEC_KEY: {**spec, "format": 99}})
    for process in (worker, coordinator):
        wait_for(partial(processes.has_logged, process, "format 99"))
        assert process.poll() is None, processes.log(process)
    with database.transaction() as connection:
        study_attrs.write(connection, study_id, {SPEC_KEY: spec})
    database.close()
    processes.run("resume", "--study", "demo", storage=storage)
    wait_for(lambda: processes.has_logged(worker, "is done; waiting for more"))
    for process in (worker, coordinator):
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    [trial] = read_trials(storage, "demo")
    assert trial.state == TrialState.COMPLETE


def blocks(heading: str) -> str:
    """The lines of a section's blocks, as a script."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"^ {4}(.*)$", section, re.MULTILINE))


def type_in(folder: Path, script: str, storage: str, path: str = "", **variables: str) -> str:
    """Runs a script as a shell does, with our command on the path."""
    own = folder / "bin"
    own.mkdir(exist_ok=True)
    command = own / "miiii-search"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m miiii_search "$@"\n')
    command.chmod(0o755)
    environment = clean_environment(storage) | {"PATH": f"{own}:{path}:{os.environ['PATH']}", **variables}
    done = subprocess.run(
        ["bash", "-ec", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fill(storage: str) -> list[dict[str, Any]]:
    """A study with two results and a queue; returns the results."""
    database = open_database(storage, create=True)
    study = create_study(database, "demo", make_spec())
    for value in (0.25, 0.5):
        end(study, claim(study), value=value)
    database.close()
    return results(storage, "demo")


def results(storage: str, study: str) -> list[dict[str, Any]]:
    return [{**trial.params, **trial.user_attrs} for trial in read_trials(storage, study)]


def test_the_page_on_sqlite(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/miiii-search.db"
    before = fill(storage)
    said = type_in(tmp_path, blocks("A study in SQLite"), "sqlite:///miiii-search.db")
    assert "training program" in said and "demo-restored" in said
    assert results(storage, "demo") == results(storage, "demo-restored") == before


def test_the_page_on_postgresql(tmp_path: Path, postgres_server: DatabaseServer) -> None:
    """The dump and its restore into an empty database, with the server's own programs."""
    storage, restored = postgres_server.create_database(), postgres_server.create_database()
    try:
        before = fill(storage)
        said = type_in(
            tmp_path, blocks("A study in PostgreSQL"), storage, path=postgres_server.programs, RESTORED=restored
        )
        assert "demo" in said
        assert results(restored, "demo") == results(storage, "demo") == before
    finally:
        for url in (storage, restored):
            postgres_server.drop_database(url)
