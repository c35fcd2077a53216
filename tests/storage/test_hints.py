"""Suggested commands work in a shell, and use the storage and the study that the message is about."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from miiii_search.storage.database import Database, open_database
from miiii_search.storage.hints import file_argument, hides_password, hint, program
from miiii_search.storage.urls import redact_url

NAMES = ["plain", "a b", "it's", "$HOME", "[a]", "a;b", '"q"', "-x", "a\\b", ":bug:", "*", "ä  ö"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MIIII_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["miiii-search"])


def words_of(command: str, **variables: str) -> list[str]:
    """Return the arguments of a command, split as a shell splits them."""
    script = command.replace(program(), "printf '%s\\0'", 1)
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env={**os.environ, **variables})
    return done.stdout.decode().split("\0")[:-1]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    folder = tmp_path / "a b's"
    folder.mkdir()
    opened = open_database(f"sqlite:///{folder}/x.db", create=True)
    opened.close()
    return opened


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_takes_the_words(name: str, database: Database) -> None:
    words = words_of(hint("status", "--study", name, database=database))
    assert words == ["status", "--study", name, "--storage", str(database)]


def test_the_storage_is_named_unless_it_is_found_anyway(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database.url.render_as_string(hide_password=False)
    assert words_of(hint("list", database=database)) == ["list", "--storage", url]
    monkeypatch.setenv("MIIII_STORAGE", url)
    assert words_of(hint("list", database=database)) == ["list"]
    monkeypatch.setenv("MIIII_STORAGE", "sqlite:///another.db")
    assert words_of(hint("list", database=database)) == ["list", "--storage", url]
    monkeypatch.delenv("MIIII_STORAGE")
    (tmp_path / "url").write_text(f"{url}\n")
    monkeypatch.setenv("MIIII_STORAGE_FILE", str(tmp_path / "url"))
    assert words_of(hint("list", database=database)) == ["list"]
    monkeypatch.delenv("MIIII_STORAGE_FILE")
    monkeypatch.chdir(tmp_path)
    default = open_database("sqlite:///miiii-search.db", create=True)
    default.close()
    assert words_of(hint("list", database=default)) == ["list"]
    monkeypatch.setenv("MIIII_STORAGE", url)  # which the command would take instead
    assert words_of(hint("list", database=default)) == ["list", "--storage", "sqlite:///miiii-search.db"]


def test_a_password_is_neither_shown_nor_replaced_by_stars(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_database(postgres_url, create=True)
    try:
        secret = database.url.set(password="se cret's")
        hidden = Database(secret, database.engine, database.optuna)
        command = hint("status", database=hidden)
        assert hides_password(hidden) and "***" not in command and "cret" not in command
        url = secret.render_as_string(hide_password=False)
        assert words_of(command, MIIII_STORAGE=url) == ["status", "--storage", url]
        monkeypatch.setenv("MIIII_STORAGE", url)
        assert words_of(hint("status", database=hidden)) == ["status"] and not hides_password(hidden)
        assert "***" in redact_url(secret)
    finally:
        database.close()


def test_the_program_is_named_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "of pytest")])
    assert program() == "miiii-search"
    there = tmp_path / "a b" / "miiii-search"
    monkeypatch.setattr(sys, "argv", [str(there)])
    assert shlex.split(program()) == [str(there)]  # it is not on the path
    there.parent.mkdir()
    there.write_text("")
    there.chmod(0o755)
    monkeypatch.setenv("PATH", str(there.parent))
    assert program() == "miiii-search"
    monkeypatch.setattr(sys, "argv", ["/x/miiii_search/__main__.py"])
    assert shutil.which("python") is None
    assert shlex.split(program()) == [sys.executable, "-m", "miiii_search"]


def test_a_file_is_no_option() -> None:
    assert [file_argument(Path(name)) for name in ("-x.toml", "a/-x", "best.toml")] == [
        "./-x.toml",
        "a/-x",
        "best.toml",
    ]
