"""Files of an older version open, continue and retrain; see tests/fixtures/before_layout/README.md."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.study_spec import FORMAT
from miiii_search.storage.database import open_database
from miiii_search.study.open import open_study
from miiii_search.study.stored_spec import parse_spec, upgrade_stored_spec
from miiii_search.testing.postgres import open_engine
from miiii_search.testing.processes import LIMIT_SECONDS, Processes, read_trials
from miiii_search.worker.checkpoints import LocalCheckpoints

OLDER = Path(__file__).parents[1] / "fixtures" / "before_layout"


def restore_sqlite(folder: Path) -> str:
    """Unpack the SQLite database; return its URL."""
    file = folder / "study.db"
    file.write_bytes(gzip.decompress((OLDER / "study.db.gz").read_bytes()))
    return f"sqlite:///{file}"


def restore_postgres(url: str) -> str:
    """Execute the dump in an empty database; return its URL."""
    with open_engine(url).connect() as connection:
        connection.exec_driver_sql(gzip.decompress((OLDER / "study.sql.gz").read_bytes()).decode().replace("%", "%%"))
        connection.commit()
    return url


def stored_spec(url: str) -> Any:
    """Read the spec as the database has it."""
    with open_engine(url).connect() as connection:
        query = sa.text("SELECT value_json FROM study_system_attributes WHERE key = 'miiii:spec'")
        return json.loads(connection.execute(query).scalar_one())


def place_checkpoints(url: str, folder: Path) -> None:
    """Put the killed worker's files where a worker on this machine looks for them."""
    database = open_database(url)
    target = LocalCheckpoints(folder, open_study(database, "demo")).folder
    database.close()
    shutil.copytree(OLDER / "checkpoints", target)


def finish(processes: Processes, url: str) -> str:
    """Train the study to its end; return what was said."""
    processes.run("status", "--study", "demo", storage=url)
    process = processes.start("up", "--study", "demo", "--no-dashboard", "--lanes", "1", storage=url)
    assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    assert [trial.state for trial in read_trials(url, "demo")] == [TrialState.COMPLETE] * 4
    return processes.log(process)


def resumed(url: str) -> dict[int, list[int]]:
    """Return the epochs from which each trial went on, by the trial's number."""
    return {
        trial.number: [entry["epoch"] for entry in trial.user_attrs["resumed"]]
        for trial in read_trials(url, "demo")
        if trial.user_attrs["resumed"]
    }


def is_current(spec: Any) -> bool:
    """Whether a stored spec has today's format and names."""
    decays = [decay for decay in spec["experiment"]["annealing"].values() if decay]
    assert len(decays) == 2
    return (spec["format"], spec["sampler"]) == (FORMAT, "grid_ei") and all("end_factor" in decay for decay in decays)


def test_a_sqlite_study_goes_on_from_its_checkpoints(processes: Processes, tmp_path: Path) -> None:
    url = restore_sqlite(tmp_path)
    [done, *_] = read_trials(url, "demo")
    place_checkpoints(url, tmp_path / "state" / "miiii-search" / "checkpoints")
    finish(processes, url)
    assert resumed(url) == {1: [4096], 2: [4096]}
    assert read_trials(url, "demo")[0] == done
    assert is_current(stored_spec(url))


def test_a_postgresql_study_goes_on_from_its_checkpoint(processes: Processes, postgres_url: str) -> None:
    url = restore_postgres(postgres_url)
    finish(processes, url)
    assert list(resumed(url)) == [2]
    assert is_current(stored_spec(url))


def test_an_exported_study_goes_on(processes: Processes, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/imported.db"
    processes.run("import-study", str(OLDER / "study.zip"), storage=url)
    finish(processes, url)
    assert list(resumed(url)) == [2]


def test_a_configuration_is_retrained(processes: Processes, tmp_path: Path) -> None:
    """Weights may differ in the last bits on another processor; the run is the same."""
    said = processes.run("train", str(OLDER / "best.toml"), "--out", "run", storage="sqlite:///unused.db")
    assert "not solved in 6,144 epochs" in said
    before, now = (json.loads((run / "metrics.json").read_text()) for run in (OLDER / "run", tmp_path / "run"))
    assert before.keys() <= now.keys()
    assert now["validation_accuracy"] == pytest.approx(before["validation_accuracy"], abs=0.1)
    assert now["train_loss"] == pytest.approx(before["train_loss"], rel=0.2)


def test_a_run_is_analysed(processes: Processes, tmp_path: Path) -> None:
    shutil.copytree(OLDER / "run", tmp_path / "run")
    processes.run("analyze", "run", "--out", "report", storage="sqlite:///unused.db")
    assert (tmp_path / "report" / "report.html").exists()


def test_a_spec_is_the_same_study(processes: Processes, tmp_path: Path) -> None:
    """The file has the old names; the study that it makes is the one that the old version made of it."""
    url = restore_sqlite(tmp_path)
    assert "exists" in processes.run("create", "--study", "demo", "--spec", str(OLDER / "config.toml"), storage=url)
    fresh = f"sqlite:///{tmp_path}/fresh.db"
    processes.run("create", "--study", "demo", "--spec", str(OLDER / "config.toml"), storage=fresh)
    assert parse_spec(stored_spec(fresh)) == parse_spec(stored_spec(url))
    of_url, of_fresh = ([trial.params for trial in read_trials(one, "demo")] for one in (url, fresh))
    assert of_fresh == of_url


KILLED = """
import os, signal, sys
from miiii_search.storage.database import open_database
from miiii_search.study import stored_spec
from miiii_search.study.open import open_study

def write_and_die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

write, stored_spec.write_spec = stored_spec.write_spec, write_and_die
stored_spec.upgrade_stored_spec(open_study(open_database(sys.argv[1]), "demo"))
"""


def test_an_upgrade_that_is_killed_changes_nothing(storage_url: str, tmp_path: Path) -> None:
    """The process dies after it has written the new spec and before it has committed it."""
    url = restore_sqlite(tmp_path) if storage_url.startswith("sqlite") else restore_postgres(storage_url)
    before = stored_spec(url)
    assert subprocess.run([sys.executable, "-c", KILLED, url], timeout=LIMIT_SECONDS).returncode == -signal.SIGKILL
    assert stored_spec(url) == before and not is_current(before)
    database = open_database(url)
    study = open_study(database, "demo")
    assert upgrade_stored_spec(study) and not upgrade_stored_spec(study)
    database.close()
    assert is_current(stored_spec(url))


def test_looking_at_a_study_does_not_upgrade_it(processes: Processes, tmp_path: Path) -> None:
    """Workers of the older version, which cannot read the new format, train on meanwhile."""
    url = restore_sqlite(tmp_path)
    before = stored_spec(url)
    for command in (["status", "--study", "demo"], ["list"], ["best", "--study", "demo"]):
        processes.run(*command, storage=url)
    assert stored_spec(url) == before
