"""Real environments: values with line ends of another system, empty values, and users without a home."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from miiii_search.cli.options import DEFAULT_STORAGE, read_storage_url
from miiii_search.dashboard.auth import read_password
from miiii_search.environment import cache_folder, clean_variables, state_folder
from miiii_search.errors import MiiiiSearchError
from miiii_search.testing.processes import COMMAND, LIMIT_SECONDS, TINY, clean_environment
from miiii_search.training.device import use_compilation_cache

pytestmark = pytest.mark.process

UNKNOWN = ("unshare", "--user", "--map-user=54321")
"""A prefix of commands that runs them as a user who is not in the password database, with the same rights."""


def test_values_lose_what_nobody_sees() -> None:
    environment = {
        "MIIII_STORAGE": " sqlite:///x.db\r\n",
        "MIIII_STUDY": "\ufeffstudy\u00a0",
        "MIIII_TRIALS": "\t",
        "MIIII_SET": "experiment.p=7\r\n\texperiment.epochs=8\n",
        "MIIII_DASHBOARD_PASSWORD": " with spaces \r",
        "OTHER": " kept\r",
    }
    clean_variables(environment)
    assert environment == {
        "MIIII_STORAGE": "sqlite:///x.db",
        "MIIII_STUDY": "study",
        "MIIII_TRIALS": "",
        "MIIII_SET": "experiment.p=7 experiment.epochs=8",
        "MIIII_DASHBOARD_PASSWORD": " with spaces ",
        "OTHER": " kept\r",
    }


@pytest.mark.parametrize("character", ["\r", "\n", "\t", "\x00", "\x1b", "\x7f", "\x85", "\u2028"])
def test_control_character_is_refused_and_the_value_not_shown(character: str) -> None:
    with pytest.raises(MiiiiSearchError, match=r"MIIII_STORAGE has a control character, .*, at position 7") as error:
        clean_variables({"MIIII_STORAGE": f"secret{character}secret"})
    assert "secret" not in str(error.value)
    assert str(error.value).isprintable()


def test_storage_as_an_option() -> None:
    assert read_storage_url("sqlite:///x.db\r") == "sqlite:///x.db"
    with pytest.raises(MiiiiSearchError, match="--storage has a control character"):
        read_storage_url("sqlite:///x\r.db")


def test_files_that_variables_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    monkeypatch.setenv("MIIII_STORAGE_FILE", str(file))
    password = {"MIIII_DASHBOARD_PASSWORD_FILE": str(file)}
    file.write_bytes(b"\xef\xbb\xbfsqlite:///x.db\r\n")
    assert read_storage_url(DEFAULT_STORAGE) == "sqlite:///x.db"
    assert read_password(password) == "sqlite:///x.db"
    for content in (b"secret\rsecret\n", b"secret\nsecret\n", b"\xff"):
        file.write_bytes(content)
        with pytest.raises(MiiiiSearchError, match=r"the file .*/file of MIIII_STORAGE_FILE ") as error:
            read_storage_url(DEFAULT_STORAGE)
        assert "secret" not in str(error.value)
        with pytest.raises(MiiiiSearchError, match=r"the file .*/file of MIIII_DASHBOARD_PASSWORD_FILE ") as error:
            read_password(password)
        assert "secret" not in str(error.value)
    file.write_bytes(b"\r\n")
    with pytest.raises(MiiiiSearchError, match="is empty"):
        read_storage_url(DEFAULT_STORAGE)


def test_carriage_return_makes_no_other_file(tmp_path: Path) -> None:
    environment = clean_environment("sqlite:///x.db\r")
    for file in ("", "url"):
        if file:
            (tmp_path / file).write_bytes(b"sqlite:///x.db\r\n")
            environment = environment | {"MIIII_STORAGE": "", "MIIII_STORAGE_FILE": "url\r"}
        subprocess.run([*COMMAND, "create"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"x.db", "url"}


@pytest.mark.parametrize("value", ["", "relative", "./relative", None])
def test_folder_that_the_specification_says_to_ignore(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    assert state_folder() == tmp_path / ".local" / "state" / "miiii-search"
    assert cache_folder() == tmp_path / ".cache" / "miiii-search"


def test_folders_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert (state_folder(), cache_folder()) == (Path("/state/miiii-search"), Path("/cache/miiii-search"))
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() is None
    with pytest.raises(MiiiiSearchError, match="XDG_STATE_HOME, or with work --checkpoints"):
        state_folder()


def test_compiled_programs_are_kept_where_a_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    try:
        monkeypatch.setenv("HOME", "relative")
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        assert use_compilation_cache() is None
        assert jax.config.jax_compilation_cache_dir is None  # type: ignore[attr-defined]
        monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
        assert use_compilation_cache() == Path("/cache/miiii-search/jax")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)  # type: ignore[no-untyped-call]


def test_user_without_a_home(tmp_path: Path) -> None:
    """Many containers have no HOME, and a user who is not in the password database."""
    if not shutil.which("unshare") or subprocess.run([*UNKNOWN, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody be another user in a namespace")
    homes = ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
    environment = {name: value for name, value in clean_environment("sqlite:///s.db").items() if name not in homes}
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str((cache_folder() or tmp_path) / "jax")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*UNKNOWN, *COMMAND, *arguments],
            cwd=tmp_path,
            env=environment | {"MPLCONFIGDIR": str(tmp_path / "mpl"), "JAX_COMPILATION_CACHE_DIR": compiled},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )

    done = run("work")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "XDG_STATE_HOME" in done.stderr
    done = run("train", "--preset", "demo", *TINY, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "config.toml").exists()
