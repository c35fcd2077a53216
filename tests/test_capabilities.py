"""Messages of an installation without JAX, such as the coordinator's image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from miiii_search.testing.processes import LIMIT_SECONDS, clean_environment

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]

WITHOUT = """
import importlib.abc, importlib.metadata, json, sys
hidden, arguments = json.loads(sys.argv[1])
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in hidden["modules"]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
import importlib.util
find = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name.partition(".")[0] in hidden["modules"] else find(name, package)
importlib.util.find_spec = find_spec
version = importlib.metadata.version
def known(name):
    if name in hidden["packages"]:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = known
from miiii_search.cli import main
sys.argv = ["miiii-search", *arguments]
main()
"""
"""Runs a command as where these packages are not installed."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def missing_there() -> dict[str, list[str]]:
    """The packages of this environment, and their modules, that requirements/coordinator.lock does not have."""
    lock = (ROOT / "requirements" / "coordinator.lock").read_text()
    locked = {normal(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)} | {"miiii-search"}
    packages, modules, kept = set(), set(), set()
    for found in distributions():
        top = {file.parts[0].removesuffix(".py") for file in found.files or () if file.suffix in (".py", ".so")}
        if normal(found.name) in locked:
            kept |= top
        else:
            packages.add(normal(found.name))
            modules |= {name.partition(".")[0] for name in top if not name.startswith(("_", "."))}
    return {"packages": sorted(packages), "modules": sorted(modules - kept)}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps([missing_there(), arguments])],
        cwd=folder,
        env=clean_environment("sqlite:///s.db"),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--preset", "demo"),
        ("work",),
        ("up",),
        ("analyze",),
        ("compare", "a", "b"),
        ("simulate",),
        ("export-weights", "--trial", "1"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_that_cannot_run_says_where_it_can(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: `{arguments[0]}` cannot run here: ")
    assert f"docker compose exec worker miiii-search {arguments[0]}" in done.stderr
    assert "image of the coordinator" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_a_coordinator_does_works_there(tmp_path: Path) -> None:
    for arguments in (["create", "--study", "s"], ["status"], ["list"], ["doctor"], ["train", "--help"]):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        if arguments == ["doctor"]:
            assert "FAIL" not in done.stdout and "pip install" not in done.stdout
            assert "an installation without JAX" in done.stdout
