"""SQLite files that may only be read, and network file systems."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from miiii_search.storage.database import open_database
from miiii_search.storage.sqlite import network_file_system
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.testing.processes import LIMIT_SECONDS, clean_environment
from tests.support import claim, end, make_spec

AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner") if os.geteuid() == 0 else ()
"""A command that makes permissions apply to root as well."""

if AS_OTHERS and shutil.which("setpriv") is None:
    pytest.skip("root may write everything, and there is no setpriv", allow_module_level=True)

READING: list[list[str]] = [
    ["status", "--json"],
    ["list", "--json"],
    ["best"],
    ["export-study", "../study.zip"],
    ["import-study", "../study.zip", "--storage", "sqlite:///../copy.db"],
]
CHANGING: list[list[str]] = [["pause"], ["delete", "--study", "s", "--yes", "--force"], ["create", "--study", "t"]]

RUN_ALL = """
import json, os, sys, tempfile
import optuna, sqlalchemy, miiii_search.cli  # once, for speed
commands, results = json.loads(sys.argv[1]), []
for arguments in commands:
    files = [tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")]
    child = os.fork()
    if child == 0:
        os.dup2(files[0].fileno(), 1)
        os.dup2(files[1].fileno(), 2)
        from miiii_search.cli import main
        sys.argv = ["miiii-search", *arguments]
        main()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.append([code, *(file.seek(0) or file.read() for file in files)])
print(json.dumps(results))
"""
"""A program that runs commands one after the other."""


def run_all(folder: Path, commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """Run commands as a user who may not write; return (exit code, stdout, stderr) of each."""
    done = subprocess.run(
        [*AS_OTHERS, sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        cwd=folder,
        env=clean_environment("sqlite:///s.db"),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def make(folder: Path) -> None:
    """Create a study with one trial that ended and one that is running."""
    database = open_database(f"sqlite:///{folder}/s.db", create=True)
    study = create_study(database, "s", make_spec())
    end(study, claim(study), value=0.75)
    claim(study)
    database.close()


def copy(source: Path, target: Path, names: Sequence[str]) -> None:
    target.mkdir()
    for name in names:
        shutil.copy(source / name, target / name)


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a read-only folder with a database that a writer has closed, or still has open."""
    inside, kind = tmp_path / "readable", request.param
    (tmp_path / "source").mkdir()
    make(tmp_path / "source")
    if kind == "at rest":
        copy(tmp_path / "source", inside, ["s.db"])
    else:
        # The last change is only in the log, as during a write or after a crash.
        writer = sqlite3.connect(tmp_path / "source" / "s.db")
        reader = sqlite3.connect(tmp_path / "source" / "s.db")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()
        writer.execute("UPDATE trial_values SET value = 0.875")
        writer.commit()
        names = {"with a log": ["s.db", "s.db-wal"], "being written": ["s.db", "s.db-wal", "s.db-shm"]}[kind]
        copy(tmp_path / "source", inside, names)
        reader.close()
        writer.close()
    for path in (*inside.iterdir(), inside):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return inside


@pytest.mark.process
@pytest.mark.parametrize("folder", ["at rest", "with a log", "being written"], indirect=True)
def test_a_read_only_file_can_be_read(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".db-shm"}
    results = run_all(folder, [*READING, *CHANGING, ["doctor"]])
    for arguments, (code, out, err) in zip(READING, results, strict=False):
        assert code == 0, (arguments, err)
        if arguments == ["best"]:
            assert f"value = {0.875 if len(before) > 1 else 0.75}" in out
    for code, _, err in results[len(READING) : -1]:
        assert code != 0
        assert err.startswith("error: cannot ") and err.count("\n") == 1, err
        assert "may only be read here" in err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".db-shm"} == before


def test_a_writer_that_comes_later_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `watch` and the dashboard, which keep the file open."""
    make(tmp_path)
    monkeypatch.setattr("miiii_search.storage.sqlite.is_writable", lambda path: False)
    reading = open_database(f"sqlite:///{tmp_path}/s.db")
    monkeypatch.undo()
    assert reading.read_only
    seen = open_study(reading, "s")
    writing = open_database(f"sqlite:///{tmp_path}/s.db")
    study = open_study(writing, "s")
    for k in range(3):
        assert sum(trial.state.is_finished() for trial in seen.trials()) == k + 1
        end(study, claim(study))
    writing.close()
    assert sum(trial.state.is_finished() for trial in seen.trials()) == 4
    reading.close()


MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
41 40 0:51 / /home/local rw,relatime - xfs /dev/sdb rw
42 27 0:52 / /my\040share rw,relatime - cifs //server/share rw
43 27 0:53 / /far rw,nosuid - fuse.sshfs me@far:/ rw
44 27 0:54 / /covered rw - nfs server:/x rw
45 27 0:55 / /covered rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/s.db", "nfs4"),
        ("/home/local/s.db", None),
        ("/homes/s.db", None),
        ("/my share/s.db", "cifs"),
        ("/far/s.db", "fuse.sshfs"),
        ("/covered/s.db", None),
        ("/s.db", None),
    ],
)
def test_a_network_file_system_is_known(tmp_path: Path, path: str, kind: str | None) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.lstrip())
    assert network_file_system(Path(path), mounts) == kind


def test_a_system_without_a_list_of_mounts(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "none") is None
