"""Mistakes on the command line: one line with advice, exit code 2, and no files written. Also `--help`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
import typer
from sqlalchemy import NullPool

from miiii_search.cli import app, main, signals
from miiii_search.testing.processes import LIMIT_SECONDS

COMMANDS = typer.main.get_command(app)
NOT_OURS = 'title = "something else"\n'
NEWER = 'kind = "miiii-search configuration"\nformat = 99\n[experiment]\n[hyperparameters]\n'
UNKNOWN_KEY = 'kind = "miiii-search configuration"\nformat = 1\n[experiment]\nepoch = 5\n[hyperparameters]\n'
SPEC_WITH_TYPO = 'sampler = "grid"\n[space]\ndropout = [0.1]\n[experiment]\nepoch = 64\n'


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start each test in an empty folder, without the environment variables of this program."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MIIII_")]:
        monkeypatch.delenv(name)
    # Signal handlers would apply to the process of pytest.
    monkeypatch.setattr(signals, "stop_on_signals", threading.Event)
    return tmp_path


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process, for speed, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["miiii-search", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    code = end.value.code
    assert isinstance(code, int)
    return code


def up(*settings: str) -> list[str]:
    """Return the arguments of `up` with settings. Nothing is trained, since one of them is wrong."""
    return ["up", "--no-dashboard", *(word for setting in settings for word in ("--set", setting))]


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "p is not prime": (up("experiment.p=15"), ["prime", "15", "13"]),
    "p is below 5": (up("experiment.p=3"), ["at least 5", "nearest is 5"]),
    "masked with p = 11": (up("experiment.task=masked", "experiment.p=11"), ["p > 11", "13"]),
    "no validation or test sample": (up("experiment.train_fraction=0.999"), ["0.999", "lower"]),
    "no test sample": (up("experiment.validation_samples=5000"), ["validation_samples", "use 384 at most"]),
    "no training sample": (up("experiment.train_fraction=1e-9"), ["none to train", "raise"]),
    "fraction above one": (up("experiment.train_fraction=1.5"), ["less than 1", "1.5"]),
    "d not divisible by heads": (up("hyperparameters.n_heads=3"), ["divisible", "128", "3", "n_heads = 2"]),
    "unknown key": (up("experiment.epoch=5"), ["`experiment.epoch`", "did you mean `experiment.epochs`"]),
    "unknown group": (up("experimnt.epochs=5"), ["experimnt", "experiment"]),
    "wrong type": (up("experiment.epochs=many"), ["experiment.epochs", "integer", "many"]),
    "no equals sign": (up("experiment.epochs"), ["key=value"]),
    "a preset by its name": (up("preset=paper"), ["`preset` cannot be set", "--preset"]),
    "a preset to train": (["train", "--preset", "demo", "--set", "preset=paper"], ["unknown key `preset`"]),
    "searched over": (up("hyperparameters.dropout=0.3"), ["searches over dropout", "space.dropout=[0.3]"]),
    "range without a sampler": (up("space.dropout={low=0.0, high=0.5}"), ["range", "sampler"]),
    "unknown sampler": (up("sampler=tep"), ["`tep`", "did you mean `tpe`"]),
    "unknown pruning rule": (up("pruning.rule=medain"), ["`medain`", "did you mean `median`"]),
    "options that a pruner does not take": (
        up("pruning.rule=median", "pruning.options.n_start=3"),
        ["pruning.options", "n_start"],
    ),
    "unknown preset": (["up", "--preset", "papr"], ["`papr`", "did you mean `paper`"]),
    "preset and spec": (
        ["create", "--preset", "demo", "--spec", "x.toml"],
        ["--preset demo", "--spec x.toml", "choose one"],
    ),
    "no such spec file": (["create", "--spec", "nowhere.toml"], ["nowhere.toml", "give the path"]),
    "no trials": (["up", "--trials", "0"], ["--trials", "1"]),
    "no such database": (["status"], ["miiii-search.db", "create a study"]),
    "unknown kind of storage": (["status", "--storage", "mysql://u:secret@h/d"], ["mysql", "sqlite", "postgresql"]),
    "not a URL": (["create", "--storage", "studies.db"], ["not a URL", "sqlite:///"]),
    "storage in memory": (["create", "--storage", "sqlite://"], ["memory", "sqlite:///FILE"]),
    "no such folder": (["create", "--storage", "sqlite:///nowhere/x.db"], ["nowhere", "create it"]),
    "server that is not there": (
        ["create", "--storage", "postgresql://u:secret@127.0.0.1:1/d"],
        ["cannot reach", "u:***@127.0.0.1:1", "server"],
    ),
    "password among the parameters": (
        ["create", "--storage", "postgresql://127.0.0.1:1/d?user=u&password=secret"],
        ["cannot reach", "127.0.0.1:1", "server"],
    ),
    **{
        f"password with {what}": (["status", "--storage", url], ["percent-encode", "%40"])
        for what, url in {
            "an at sign": "postgresql://u:se@secret@127.0.0.1:1/d",
            "two at signs": "postgresql://u:@secret@@127.0.0.1:1/d",
            "an at sign and a slash": "postgresql://u:se/x@secret@127.0.0.1:1/d",
            "an at sign among the parameters": "postgresql://127.0.0.1:1/d?user=u&password=x@secret",
            "an at sign among the parameters, without a database": "postgresql://127.0.0.1?password=x@secret",
            "what looks like a port": "postgresql://u:12/secret@127.0.0.1:1/d",
        }.items()
    },
    **{
        f"password with {character}": (
            ["status", "--storage", f"postgresql://u:{character}secret{character}@127.0.0.1:1/d"],
            ["cannot reach", "u:***@127.0.0.1:1/d", "server"],
        )
        for character in ("/", "#", "?", ":", "%40", "%2F", "%")
    },
    "unknown parameter that is secret": (
        ["status", "--storage", "postgresql://127.0.0.1:1/d?pwd=secret"],
        ["cannot use", "invalid connection option"],
    ),
    "URL where none is expected": (["status", "postgresql://u:secret@h/d"], ["unexpected", "***@h/d"]),
    "SQLite with a host": (["status", "--storage", "sqlite://u:secret@h/x.db"], ["three slashes"]),
    "SQLite with two slashes": (["status", "--storage", "sqlite://x.db"], ["three slashes"]),
    "port that is no number": (["create", "--storage", "postgresql://u:secret@h:port/d"], ["not a URL"]),
    "parameters of SQLite": (["create", "--storage", "sqlite:///x.db?timeout=x"], ["`timeout`", "sqlite:///FILE"]),
    "folder for a database": (["create", "--storage", "sqlite:///."], ["cannot use sqlite:///.", "file"]),
    "duplicate value": (up("space.dropout=[0.1, 0.1]"), ["space.dropout", "0.1 twice"]),
    "sampler without a budget": (up("sampler=random"), ["budget", "--trials"]),
    "lanes in words": (["up", "--preset", "demo", "--lanes", "many"], ["--lanes", "auto", "many"]),
    "no lanes": (["work", "--lanes", "0"], ["--lanes", "at least 1", "0"]),
    "port out of range": (["dashboard", "--port", "99999"], ["--port", "65535"]),
    "unknown option": (["status", "--stduy", "x"], ["--stduy", "--study", "--help"]),
    "unknown command": (["statsu"], ["statsu", "--help"]),
    "file and preset": (["train", "best.toml", "--preset", "demo"], ["one of the two", "best.toml and --preset demo"]),
    "neither file nor preset": (["train"], ["neither", "--preset paper"]),
    "no such configuration file": (["train", "nowhere.toml"], ["nowhere.toml"]),
    "no such named configuration": (
        ["train", "--preset", "paper", "--config", "paper-bset"],
        ["paper-bset", "did you mean `paper-best`"],
    ),
    "wrong setting of train": (["train", "--preset", "paper", "--set", "experiment.p=4"], ["prime", "4"]),
    "unknown format": (["best", "--format", "yaml"], ["toml or json", "yaml"]),
    "unknown measure": (["best", "--by", "mean"], ["trial, median or worst", "mean"]),
    "no number of replicates": (up("replicates=many"), ["replicates.count", "integer", "many"]),
    "further seeds of which there are none": (up("replicates.top=3"), ["replicates.top = 3", "replicates.count"]),
    "open dashboard": (["dashboard", "--host", "0.0.0.0"], ["MIIII_DASHBOARD_PASSWORD", "127.0.0.1"]),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_one_line_and_writes_nothing(
    arguments: list[str],
    words: list[str],
    empty_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(arguments, monkeypatch) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1, said.err
    for word in words:
        assert word in said.err
    assert "secret" not in said.err + said.out
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NOT_OURS, ["not a configuration of miiii-search", "miiii-search best"]),
        (NEWER, ["format 99", "format 1", "newer"]),
        (UNKNOWN_KEY, ["`epoch`", "did you mean `epochs`"]),
        ("= not toml", ["not TOML"]),
    ],
    ids=["not ours", "newer format", "unknown key", "not TOML"],
)
def test_configuration_file_that_cannot_be_trained(
    text: str,
    words: list[str],
    empty_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (empty_folder / "x.toml").write_text(text)
    assert run(["train", "x.toml", "--out", "run"], monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in ("x.toml", *words):
        assert word in error
    assert [path.name for path in empty_folder.iterdir()] == ["x.toml"]


def test_spec_file_with_a_typo(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "spec.toml").write_text(SPEC_WITH_TYPO)
    assert run(["create", "--spec", "spec.toml"], monkeypatch) == 2
    assert "did you mean `experiment.epochs`" in capsys.readouterr().err
    assert [path.name for path in empty_folder.iterdir()] == ["spec.toml"]


def test_study_that_does_not_exist_and_export_with_no_finished_trial(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["create", "--study", "alpha"], monkeypatch) == 0
    assert run(["create", "--study", "alpha"], monkeypatch) == 0
    capsys.readouterr()
    for command in ("status", "watch", "work", "best"):
        assert run([command, "--study", "alpah"], monkeypatch) == 2
        error = capsys.readouterr().err
        assert "`alpah`" in error
        assert "did you mean `alpha`" in error
        assert error.count("\n") == 1
    assert run(["best", "--out", "best.toml"], monkeypatch) == 2
    error = capsys.readouterr().err
    assert "no completed trial" in error
    assert "miiii-search status" in error
    assert not Path("best.toml").exists()
    assert run(["create", "--study", "alpha", "--set", "experiment.epochs=8"], monkeypatch) == 2
    assert "experiment.epochs is 3072, not 8" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_creates_no_study(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "demo-best.toml").mkdir()
    assert run(["up", "--preset", "demo", "--no-dashboard"], monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write the result, demo-best.toml,") and error.count("\n") == 1
    assert [path.name for path in empty_folder.iterdir()] == ["demo-best.toml"]


def test_threads_that_the_system_does_not_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start_a_thread() -> None:
        before = threading.stack_size(2**46)
        try:
            threading.Thread(target=lambda: None).start()
        finally:
            threading.stack_size(before)

    monkeypatch.setattr(signals, "stop_on_signals", start_a_thread)
    assert run(["coordinate", "--preset", "demo"], monkeypatch) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: can't start new thread: raise the limit of processes") and error.count("\n") == 1


def test_databases_that_are_not_ours(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "notes.txt").write_text("A text, and no database. " * 100)
    storage = optuna.storages.RDBStorage("sqlite:///theirs.db", engine_kwargs={"poolclass": NullPool})
    optuna.create_study(study_name="theirs", storage=storage).ask()
    before = {path.name: path.read_bytes() for path in empty_folder.iterdir()}
    for command, words in [
        (["status", "--storage", "sqlite:///notes.txt"], ["notes.txt", "not a database"]),
        (["create", "--storage", "sqlite:///notes.txt"], ["notes.txt", "not a database"]),
        (["status", "--storage", "sqlite:///theirs.db"], ["theirs.db holds no studies", "miiii-search create"]),
        (["work", "--storage", "sqlite:///theirs.db", "--study", "theirs"], ["theirs.db holds no studies"]),
    ]:
        assert run(command, monkeypatch) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        for word in words:
            assert word in error
    assert {path.name: path.read_bytes() for path in empty_folder.iterdir() if path.suffix != ".db"} == {
        "notes.txt": before["notes.txt"]
    }
    # A study of this program can be added to a database of Optuna's, whose own study stays unchanged.
    assert run(["create", "--study", "ours", "--storage", "sqlite:///theirs.db"], monkeypatch) == 0
    for command in (["create", "--trials", "3"], ["status"], ["best"]):
        assert run([*command, "--storage", "sqlite:///theirs.db", "--study", "theirs"], monkeypatch) == 2
        assert "`theirs` was not created by miiii-search" in capsys.readouterr().err
    [trial] = optuna.load_study(study_name="theirs", storage=storage).trials
    assert trial.params == {} and trial.state == optuna.trial.TrialState.RUNNING


def test_storage_and_study_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIIII_STORAGE", "sqlite:///elsewhere.db")
    monkeypatch.setenv("MIIII_STUDY", "named")
    assert run(["create", "--trials", "2"], monkeypatch) == 0
    assert {path.name.partition("-")[0] for path in Path().iterdir()} == {"elsewhere.db"}
    assert run(["status", "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["study"] == "named"
    monkeypatch.setenv("MIIII_STORAGE", "mysql://u:secret@h/d")
    assert run(["status"], monkeypatch) == 2
    assert "secret" not in capsys.readouterr().err


def test_nothing_typed_shows_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], monkeypatch) == 2
    shown = capsys.readouterr().err
    for name, command in COMMANDS.commands.items():  # type: ignore[attr-defined]
        assert (f"\n  {name} " in shown) is not command.hidden


def test_which_study_names_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("alpha", "beta"):
        assert run(["create", "--study", name], monkeypatch) == 0
    capsys.readouterr()
    assert run(["status"], monkeypatch) == 2
    assert "`alpha`, `beta`" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS.commands))  # type: ignore[attr-defined]
def test_help_of_a_command(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A summary, a paragraph and examples that can be typed, within 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run([name, "--help"], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    summary, paragraph = lines[2], lines[4]
    assert summary.startswith("  ") and summary.endswith(".") and lines[3] == ""
    assert paragraph.startswith("  ") and not paragraph.startswith("  Examples:")
    start = lines.index("  Examples:")
    examples = [line.strip() for line in lines[start + 1 : lines.index("", start)]]
    command = COMMANDS.commands[name]  # type: ignore[attr-defined]
    assert examples
    for example in examples:
        words = [word for word in shlex.split(example) if not word.startswith("MIIII_")]
        assert words[:2] == ["miiii-search", name]
        with command.make_context(name, words[2:]):
            pass


def test_help_lists_the_commands_in_panels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"], monkeypatch) == 0
    shown = capsys.readouterr().out
    panels = [line.rstrip(":") for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert panels == ["Options", "Run", "Watch", "Manage", "Results", "Analyze", "Deploy"]
    assert "..." not in shown.partition("\nRun:")[2], "a summary is too long"
    assert max(map(len, shown.splitlines())) <= 80


def test_doctor_says_what_is_wrong_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor"], monkeypatch) == 0
    healthy = capsys.readouterr().out
    assert "Python" in healthy
    assert "JAX computes on" in healthy
    assert run(["doctor", "--storage", "postgresql://u:secret@127.0.0.1:1/d"], monkeypatch) == 1
    ill = capsys.readouterr().out
    assert "FAIL cannot reach postgresql://u:***@127.0.0.1:1/d" in ill
    assert "secret" not in ill


@pytest.mark.process
@pytest.mark.parametrize("name", ["plain", "it's [a] $HOME;b", "-x :bug:", "two  spaces"])
def test_what_an_error_says_to_type_can_be_typed(
    name: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For any name of a study and any path of its storage."""
    storage = f"sqlite:///{empty_folder}/a b's.db"
    create = ["create", f"--study={name}", "--trials", "2", "--storage", storage]
    assert run(create, monkeypatch) == 0
    assert run(["best", f"--study={name}", "--storage", storage], monkeypatch) == 2
    told = capsys.readouterr().err
    command = told.rpartition("; see ")[2].strip()
    program = shlex.join([sys.executable, "-m", "miiii_search"])
    typed = command.replace("miiii-search", program, 1) + " --json"
    done = subprocess.run(["sh", "-c", typed], capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert json.loads(done.stdout)["study"] == name, done.stderr


def test_an_extension_cannot_rename_the_preset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["create", "--preset", "demo"], monkeypatch) == 0
    assert run(["extend", "--set", "preset=paper"], monkeypatch) == 2
    assert "`preset` cannot be set" in capsys.readouterr().err


def test_a_study_of_a_file_is_named_for_the_file(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that `--dry-run` prints names its preset; once edited it describes another study."""
    assert run(["create", "--preset", "demo", "--dry-run"], monkeypatch) == 0
    (empty_folder / "mine.toml").write_text(capsys.readouterr().out)
    assert run(["create", "--spec", "mine.toml"], monkeypatch) == 0
    assert "study `mine` created" in capsys.readouterr().out


@pytest.mark.process
def test_mistake_in_a_process_of_its_own(empty_folder: Path) -> None:
    """There is no traceback, not even from the interpreter's shutdown."""
    done = subprocess.run(
        [sys.executable, "-m", "miiii_search", *up("experiment.p=9")],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(empty_folder.iterdir()) == []


@pytest.mark.process
def test_no_device_is_one_line(empty_folder: Path) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "no-such-device"}
    command = [sys.executable, "-m", "miiii_search", "train", "--preset", "demo", "--out", "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "no-such-device" in done.stderr
    assert "JAX_PLATFORMS=cpu" in done.stderr


SIGNAL_AT_EXIT = """
import os, signal, sys
from miiii_search.cli.signals import stop_on_signals

class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

stop_on_signals()
sys.modules["late"] = Late()
"""
"""A program that gets SIGTERM while the interpreter exits, after it has restored the default actions of signals."""


@pytest.mark.process
def test_a_signal_at_exit_does_not_change_the_exit_code() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNAL_AT_EXIT], cwd=Path(__file__).parents[1])
    assert done.returncode == 0


@pytest.mark.process
def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    """The warning suggests the most similar setting. A known setting causes no warning."""
    environment = {**os.environ, "MIIII_TRAILS": "64", "MIIII_STATE": str(tmp_path)}
    command = [sys.executable, "-m", "miiii_search", "create", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert done.stderr == "warning: MIIII_TRAILS is not a setting and has no effect; did you mean MIIII_TRIALS?\n"
