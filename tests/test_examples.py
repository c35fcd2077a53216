"""The examples, run as programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miiii_search.testing.processes import COMMAND, LIMIT_SECONDS, TINY

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def run(folder: Path, *command: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIIII_")}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def example(folder: Path, name: str, *arguments: str) -> str:
    return run(folder, sys.executable, str(EXAMPLES / name), *arguments)


def test_every_example_is_run() -> None:
    named = {"train_one_run.py", "search_in_a_script.py", "study_to_pandas.py", "ablate_a_frequency.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == named


def test_train_one_run(folder: Path) -> None:
    said = example(folder, "train_one_run.py", "--p", "11", "--epochs", "64", "--out", "report")
    assert "validation accuracy: " in said and "the report is report/report.html" in said
    assert (folder / "report" / "report.html").stat().st_size > 10_000


def test_a_study_in_a_script_and_in_pandas(folder: Path) -> None:
    said = example(folder, "search_in_a_script.py", "--epochs", "32", "--out", "best.toml")
    assert "best: trial " in said and "train it again: miiii-search train best.toml" in said
    assert "Trial 3 " in said, "the logger passes on what the worker says"
    table = example(folder, "study_to_pandas.py", "--storage", "sqlite:///search.db")
    assert "4 complete" in table and table.count("complete") == 5 and "params_weight_decay" in table
    run(folder, *COMMAND, "train", "best.toml", "--out", "again")


def test_ablate_a_frequency(folder: Path) -> None:
    run(folder, *COMMAND, "train", "--preset", "demo", *TINY, "--out", "run")
    said = example(folder, "ablate_a_frequency.py", "run")
    assert said.count("the mean accuracy falls by") == 3  # p = 7 has three frequencies
