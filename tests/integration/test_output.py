"""Output is not the work: a run, a trial and a budget come to their ends whatever becomes of standard output."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from miiii_search.cli.study_request import read_spec
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.study.status import read_status
from miiii_search.testing.processes import COMMAND, LIMIT_SECONDS, TINY, clean_environment, read_trials, wait_for

ENDLESS = (*TINY, "--set", "experiment.epochs=1000000")
STUDY = ("--study", "s", "--preset", "demo")

CURSOR = re.compile(rb"\x1b\[[0-9;?]*[A-Za-ln-z]")
"""A control sequence that is not a colour."""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def study(storage: str) -> None:
    """A study `s` of two trials that do not end, with a budget."""
    database = open_database(storage, create=True)
    try:
        create_study(
            database,
            "s",
            read_spec("demo", None, [*ENDLESS[1::2], "pruning.rule=none", "budget.device_hours=100"], 2),
        )
    finally:
        database.close()


@pytest.fixture
def start(tmp_path: Path, storage: str) -> Iterator[Start]:
    """Starts a command with streams of the test's own; whatever is left is killed."""
    started = []

    def start(
        *arguments: str, within: tuple[str, ...] = (), environment: dict[str, str] | None = None, **how: Any
    ) -> subprocess.Popen[Any]:
        process: subprocess.Popen[Any] = subprocess.Popen(
            [*within, *COMMAND, *arguments],
            cwd=tmp_path,
            env=clean_environment(storage) | {"XDG_STATE_HOME": str(tmp_path / "state")} | (environment or {}),
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **how},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def full() -> Iterator[int]:
    with open("/dev/full", "wb") as file:
        yield file.fileno()


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe whose reader has gone, such as `true`."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def open_terminal() -> tuple[int, int]:
    """The ends of a pseudo-terminal: ours, which stands for the window, and that of the processes in it."""
    return pty.openpty()


def said(process: subprocess.Popen[bytes]) -> str:
    """Return the standard error of a command that has ended."""
    assert process.stderr is not None
    return process.stderr.read().decode()


def stopped_at(run: Path) -> int:
    epoch: int = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))["provenance"]["stopped_at_epoch"]
    return epoch


def trains(run: Path) -> bool:
    """Whether `train` has kept weights already."""
    return any(run.rglob("epoch-*.npz"))


# A run


@pytest.mark.parametrize("way", ["full", "closed", "gone"])
def test_a_run_is_written_where_its_output_cannot_be(way: str, start: Start, full: int, tmp_path: Path) -> None:
    arguments = ("train", "--preset", "demo", *TINY, "--out", "run")
    if way == "full":
        process = start(*arguments, stdout=full, stderr=full)
    elif way == "closed":
        process = start(*arguments, within=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"))
    else:  # a terminal, without a hangup, as after `disown`
        window, terminal = open_terminal()
        process = start(*arguments, stdout=terminal, stderr=terminal, start_new_session=True)
        os.close(terminal)
        os.close(window)
    assert process.wait(LIMIT_SECONDS) == 0
    for name in ("config.toml", "metrics.json", "record.npz", "weights.safetensors", "learning-curves.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_interrupted_together_with_the_reader_of_its_output(start: Start, unread: int, tmp_path: Path) -> None:
    """`train | tee log` and Ctrl-C, which ends `tee`, too."""
    process = start("train", "--preset", "demo", *ENDLESS, "--out", "run", stdout=unread)
    wait_for(lambda: trains(tmp_path / "run"))
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_SECONDS) == 130
    assert stopped_at(tmp_path / "run") > 0
    assert said(process) == ""


# Workers


def test_a_worker_hands_back_and_pays_for_what_it_used(start: Start, study: None, storage: str, unread: int) -> None:
    """`work | tee log` and Ctrl-C."""
    process = start("work", "--lanes", "2", stdout=unread)
    wait_for(lambda: any(trial.intermediate_values for trial in read_trials(storage, "s")))
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_SECONDS) == 0
    assert {trial.state for trial in read_trials(storage, "s")} == {TrialState.WAITING}
    database = open_database(storage)
    try:
        used, _ = read_status(open_study(database, "s")).budget["device_hours"]
    finally:
        database.close()
    assert 0 < used < 0.1


def test_up_goes_on_when_its_reader_has_seen_enough(start: Start, storage: str) -> None:
    """`up | head -1`. The worker writes more than a pipe holds: nobody would empty it."""
    process = start(
        *("up", *STUDY, *TINY, "--trials", "2", "--no-dashboard", "--lanes", "2"),
        stdout=subprocess.PIPE,
        environment={"JAX_LOGGING_LEVEL": "DEBUG"},
    )
    assert process.stdout is not None and process.stdout.readline().startswith(b"study `s` created")
    process.stdout.close()
    assert process.wait(LIMIT_SECONDS) == 0
    assert {trial.state for trial in read_trials(storage, "s")} == {TrialState.COMPLETE}


# Terminals that are closed


def in_terminal(start: Start, *arguments: str) -> tuple[int, subprocess.Popen[bytes]]:
    """A command that is alone in a terminal, and the window."""
    window, terminal = open_terminal()
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    # Whoever runs the tests may ignore hangups, as nohup does, and a process inherits that.
    process = start(*arguments, within=("env", "--default-signal=HUP", "setsid", "--ctty"), **streams)
    os.close(terminal)
    return window, process


def read_until(window: int, words: bytes) -> None:
    found = b""
    while words not in found:
        found += os.read(window, 65536)


def test_a_terminal_is_closed_on_a_worker(start: Start, study: None, storage: str) -> None:
    window, process = in_terminal(start, "work", "--lanes", "2")
    wait_for(lambda: any(trial.intermediate_values for trial in read_trials(storage, "s")))
    os.close(window)
    process.send_signal(signal.SIGHUP)  # as a shell sends it once more; twice is not "at once"
    assert process.wait(LIMIT_SECONDS) == 0
    assert {trial.state for trial in read_trials(storage, "s")} == {TrialState.WAITING}


def test_a_terminal_is_closed_on_a_run(start: Start, tmp_path: Path) -> None:
    window, process = in_terminal(start, "train", "--preset", "demo", *ENDLESS, "--out", "run")
    wait_for(lambda: trains(tmp_path / "run"))
    os.close(window)
    assert process.wait(LIMIT_SECONDS) == 130
    assert stopped_at(tmp_path / "run") > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("watch",), b"2 waiting"),
        (("coordinate", "--study", "s", "--metrics-port", "0"), b"metrics: "),
        (("dashboard", "--port", "0"), b"dashboard: "),
        (("up", "--study", "s", "--port", "0"), b"dashboard: "),
    ],
    ids=["watch", "coordinate", "dashboard", "up"],
)
def test_a_terminal_is_closed(arguments: tuple[str, ...], words: bytes, start: Start, study: None) -> None:
    window, process = in_terminal(start, *arguments)
    read_until(window, words)
    os.close(window)
    assert process.wait(LIMIT_SECONDS) == 0


def test_nohup(start: Start, tmp_path: Path) -> None:
    process = start("train", "--preset", "demo", *ENDLESS, "--out", "run", within=("nohup",))
    wait_for(lambda: trains(tmp_path / "run"))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGUSR1)  # ends it: had the hangup been heard, it would have been told to stop before
    assert process.wait(LIMIT_SECONDS) == -signal.SIGUSR1
    assert not (tmp_path / "run" / "config.toml").exists()


# Encodings, logs, and readers that see the beginning


LOG = {"PYTHONIOENCODING": "ascii", "FORCE_COLOR": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ended")


def run(
    folder: Path, *arguments: str, stdout: int = subprocess.PIPE, environment: dict[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """A command's exit code, its standard output as far as it can be read, and its standard error."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environment("sqlite:///s.db") | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=LIMIT_SECONDS,
    )
    return done.returncode, done.stdout or b"", done.stderr


@pytest.fixture(scope="module")
def searched(folder: Path) -> bytes:
    """Return the output of `up` in the folder, written to a log with colours and without λ."""
    arguments = ("up", "--study", "λ", "--preset", "demo", *TINY, "--trials", "2", "--no-dashboard", "--lanes", "2")
    code, output, errors = run(folder, *arguments, environment=LOG)
    assert (code, errors) == (0, b""), output
    return output


@pytest.fixture(scope="module")
def trained(folder: Path, searched: bytes) -> bytes:
    """Return the output of `train` in the folder, written to such a log."""
    code, output, errors = run(folder, "train", "λ-best.toml", environment=LOG)
    assert (code, errors) == (0, b""), output
    return output


def test_logs_of_what_trains(searched: bytes, trained: bytes) -> None:
    for log in (searched, trained):
        assert log.isascii()
        assert not CURSOR.search(log)
    assert b"\x1b[" in searched


def test_watch_in_a_log_with_colours(folder: Path, searched: bytes) -> None:
    code, log, errors = run(
        folder, "watch", environment={"FORCE_COLOR": "3", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}
    )
    assert (code, errors) == (0, b"")
    assert b"2 complete" in log and not CURSOR.search(log)


@pytest.mark.parametrize(
    "arguments",
    [["watch"], ["list"], ["compare", "runs/latest", "runs/latest"]],
    ids=" ".join,
)
def test_a_terminal_that_is_not_utf_8(arguments: list[str], folder: Path, trained: bytes) -> None:
    code, output, errors = run(folder, *arguments, environment={"PYTHONIOENCODING": "ascii"})
    assert (code, errors) == (0, b"")
    assert output.isascii()


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["latin-1", "C"],
)
def test_a_locale_that_is_not_utf_8(environment: dict[str, str], folder: Path, searched: bytes) -> None:
    code, output, errors = run(folder, "status", environment=environment)
    assert (code, errors) == (0, b"")
    assert b"lambda 0" in output
    # What is a file is written as the file's format has it.
    code, output, errors = run(folder, "best", environment=environment)
    assert (code, errors) == (0, b"")
    assert tomllib.loads(output.decode("utf-8"))["provenance"]["study"] == "λ"


RESULTS = (["status"], ["best"], ["work", "--help"])


@pytest.mark.parametrize("arguments", RESULTS, ids=" ".join)
def test_reader_that_has_gone_is_no_failure(arguments: list[str], folder: Path, searched: bytes, unread: int) -> None:
    assert run(folder, *arguments, stdout=unread) == (0, b"", b"")


@pytest.mark.parametrize("arguments", RESULTS, ids=" ".join)
def test_result_that_cannot_be_written_is_a_failure(
    arguments: list[str], folder: Path, searched: bytes, full: int
) -> None:
    error = b"error: cannot write standard output: No space left on device\n"
    assert run(folder, *arguments, stdout=full) == (1, b"", error)


def test_other_work_is_done_all_the_same(folder: Path, full: int) -> None:
    warning = b"warning: cannot write standard output: No space left on device\n"
    assert run(folder, "create", "--storage", "sqlite:///other.db", stdout=full) == (0, b"", warning)


def test_watch_ends_with_its_reader(start: Start, study: None, unread: int) -> None:
    process = start("watch", stdout=unread)
    assert process.wait(LIMIT_SECONDS) == 0
    assert said(process) == ""
