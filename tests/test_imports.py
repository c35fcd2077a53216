"""Modules that must not be imported: a coordinator's image has no JAX, and training needs no database."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from miiii_search.testing.processes import LIMIT_SECONDS

pytestmark = pytest.mark.process

RUN_AND_TELL = """
import sys
from miiii_search.cli import main
sys.argv[1:] = {arguments!r}
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("LOADED", *sorted(name for name in sys.modules if "." not in name))
"""


def loaded_by(code: str, folder: Path) -> set[str]:
    """Run code in a new interpreter and return the top-level modules that it has imported."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MIIII_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study whose only trial has ended."""
    folder = tmp_path_factory.mktemp("study")
    subprocess.run(
        [
            *(sys.executable, "-m", "miiii_search", "up", "--preset", "demo", "--no-dashboard", "--trials", "1"),
            *("--set", "experiment.p=7", "--set", "experiment.epochs=16", "--set", "experiment.validation_samples=10"),
            *("--set", "hyperparameters.d_model=16"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=180,
    )
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["coordinate"],
        ["status", "--json"],
        ["best", "--out", "best.toml"],
        ["create", "--study", "other"],
        ["simulate", "--replays", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_without_jax(arguments: list[str], folder: Path) -> None:
    if arguments[0] != "create":
        arguments = [*arguments, "--study", "demo"]
    loaded = loaded_by(RUN_AND_TELL.format(arguments=arguments), folder)
    assert "optuna" in loaded
    assert not loaded & {"jax", "flax", "optax"}


def test_dashboard_without_jax(folder: Path) -> None:
    code = """
import os, signal, sys, threading
from miiii_search.dashboard import server
from miiii_search.cli import main
serve = server.serve
def serve_and_end(app, host, port, ready):
    serve(app, host, port, lambda url: (ready(url), os.kill(os.getpid(), signal.SIGTERM)))
server.serve = serve_and_end
sys.argv[1:] = ["dashboard", "--port", "0"]
try:
    main()
except SystemExit:
    pass
print("LOADED", *sorted(name for name in sys.modules if "." not in name))
"""
    loaded = loaded_by(code, folder)
    assert "optuna_dashboard" in loaded
    assert not loaded & {"jax", "flax", "optax"}


@pytest.mark.parametrize("package", ["experiment", "training"])
def test_training_needs_no_database_and_an_experiment_no_jax(package: str, tmp_path: Path) -> None:
    code = f"""
import importlib, pkgutil, sys
import miiii_search.{package} as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print("LOADED", *sorted(name for name in sys.modules if "." not in name))
"""
    loaded = loaded_by(code, tmp_path)
    assert ("jax" in loaded) == (package == "training")
    assert not loaded & {"optuna", "sqlalchemy", "typer"}


def test_the_command_line_alone_is_light(tmp_path: Path) -> None:
    """Commands import what they need when they are called, so that `--help` and error messages appear at once."""
    loaded = loaded_by("import sys, miiii_search.cli; print('LOADED', *sys.modules)", tmp_path)
    assert "miiii_search.cli.run" in loaded
    assert not loaded & {"jax", "numpy", "optuna", "pydantic", "rich", "sqlalchemy"}


def test_help_answers_within_half_a_second_of_cpu() -> None:
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "miiii_search", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # The smallest of several: the machine's other work can only add to it.
    assert min(cpu_seconds() for _ in range(5)) < 0.5
