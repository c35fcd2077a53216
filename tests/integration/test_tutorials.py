"""The tutorials, typed as they stand there in a fresh clone; what they show is compared with what is printed.

A tutorial's commands are its indented blocks, and the block in backticks after them is their output. Studies are
smaller here than a reader's: MIIII_SET sets their size. Numbers and states may therefore differ, words may not.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from miiii_search.testing.processes import clean_environment, wait_for
from tests.integration.engine import ROOT, has_engine, inspect
from website import readme

PAGES = ROOT / "docs" / "tutorials"
SMALL = {
    "MIIII_SET": "experiment.p=23 experiment.train_fraction=0.7 experiment.validation_samples=80 "
    "hyperparameters.d_model=64 space.weight_decay=[1.0,2.0]",
    "MIIII_TRIALS": "4",
}
"""Four configurations, most of which grok within seconds."""
TINY = "experiment.p=11 experiment.epochs=512 experiment.validation_samples=30 hyperparameters.d_model=32"
BLOCK = re.compile(r"(?:^ {4}[^\n]+\n)+|^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"\s*\d+\s+\d+\s+(?:solved|complete|pruned) [\d., ]*")
"""The beginning of a row of the table of trials; an unsolved trial has one value less."""
NUMBER = re.compile(r"(?:\d|(?<=\d)(?:\\\.|,)(?=\d))+")
DURATION = re.compile(r"(?<=\])\+(?:\\ )(?:s|min|h)\b")


def blocks(page: str) -> list[tuple[str, str]]:
    """Return a tutorial's blocks as (kind, text); the kind is `shell`, `python` or `output`."""
    found = []
    for match in BLOCK.finditer((PAGES / page).read_text(encoding="utf-8")):
        fenced = match[0].startswith("```")
        kind = (match[1] or "output") if fenced else "shell"
        found.append((kind, match[2] if fenced else re.sub(r"^ {4}", "", match[0], flags=re.MULTILINE)))
    return found


def assert_shown(expected: str, printed: str, page: str) -> None:
    """Each line that the page shows was printed, in this order, up to numbers, times, spaces and states."""
    at = 0
    for line in expected.splitlines():
        if not line.strip(" …─"):
            continue
        if ROW.match(line):
            pattern = ROW.pattern
        else:
            pattern = NUMBER.sub(r"[\\d.,]+", re.escape(" ".join(line.split())))
            pattern = DURATION.sub(r"+ (?:s|min|h)", pattern).replace("\\ ", " ").replace(" ", r"\s+")
        match = re.compile(pattern).search(printed, at)
        assert match, f"{page} shows this line, which was not printed:\n{line}\n\n{printed[at:][-3000:]}"
        at = match.end()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clone(tmp_path_factory.mktemp("tutorials") / "miiii-search")


def make_clone(folder: Path) -> Path:
    """Copy what a clone holds. Its `.venv` is that of these tests, and newer than all locks."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.split("\n"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            os.utime(folder / name, (1, 1))
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in (".run", ".test", ".ready"):
        (folder / ".venv" / name).touch()
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    shutil.copy(Path(sys.executable).with_name("miiii-search"), programs)
    return folder


def type_in(folder: Path, script: str, **variables: str) -> str:
    environment = clean_environment("") | {"XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "120", **variables}
    environment.pop("MIIII_STORAGE", None)
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def show_dashboard(folder: Path) -> None:
    """Start the dashboard as the page says, but at a free port; stop it by Ctrl-C once it serves."""
    command = [str(folder / ".venv" / "bin" / "miiii-search"), "dashboard", "--port", "0"]
    environment = clean_environment("") | {"XDG_STATE_HOME": str(folder / "state")}
    environment.pop("MIIII_STORAGE")
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 120)[0]
            assert "http://127.0.0.1:" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def follow(page: str, folder: Path, **variables: str) -> None:
    """Type every command of a page, and compare what the page shows after it."""
    printed = ""
    for kind, text in blocks(page):
        if kind == "output":
            assert_shown(text, printed, page)
        elif "miiii-search dashboard" in text:
            show_dashboard(folder)
        elif kind == "shell":
            script = re.sub(r"^(?:git clone|cd) .*\n", "", text, flags=re.MULTILINE)
            printed = type_in(folder, script, **variables)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", ["first-search.md", "circuits.md"])
def test_tutorials_of_the_command_line(page: str, clone: Path) -> None:
    follow(page, clone, **SMALL)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readme_shows_what_the_demo_prints(clone: Path) -> None:
    printed = type_in(clone, "make demo", **SMALL)
    assert_shown(readme.shown(), readme.shorten(printed), "README.md")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_from_python(clone: Path) -> None:
    """All blocks are typed into one interpreter, at the page's own size."""
    page = "from-python.md"
    lines = [text if kind == "python" else "" for kind, text in blocks(page)]
    (clone / "typed.txt").write_text("\n".join(lines))
    printed = type_in(clone, ".venv/bin/python - < typed.txt")
    for kind, text in blocks(page):
        if kind == "output":
            assert_shown(text, printed, page)


class Machines:
    """Two clones, as on two machines: one engine, but projects and settings of their own."""

    def __init__(self, folder: Path) -> None:
        self.first = make_clone(folder / "first" / "miiii-search")
        self.second = make_clone(folder / "second" / "miiii-search")
        with socket.socket() as database, socket.socket() as page:
            database.bind(("", 0))
            page.bind(("", 0))
            self.port = str(database.getsockname()[1])
            settings = {
                "COMPOSE_PROJECT_NAME": f"tutorial-{os.getpid()}",
                "MIIII_DASHBOARD": f"127.0.0.1:{page.getsockname()[1]}",
                "MIIII_DATABASE_PORT": self.port,
                "MIIII_LANES": "1",
                "MIIII_SET": TINY,
            }
        (self.first / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def type_in(self, script: str, *, on_the_second: bool = False) -> str:
        """Type commands of a page; without a terminal, `exec` needs -T. The host is that of the engine's gateway."""
        gateway = inspect("bridge")["IPAM"]["Config"][0]["Gateway"]
        script = re.sub(r"^(?:git clone|cd) .*\n", "", script, flags=re.MULTILINE)
        script = re.sub(r"compose exec (?!-T)", "compose exec -T ", script).replace("gpu1.lab", gateway)
        script = script.replace("invite --host", f"invite --port {self.port} --host")
        return type_in(self.second if on_the_second else self.first, script)

    def close(self) -> None:
        for folder, file in ((self.second, "workers/docker-compose.yml"), (self.first, "docker-compose.yml")):
            if (folder / Path(file).parent / ".env").exists():
                down = ["docker", "compose", "--file", file, "down", "--volumes", "--rmi", "local", "--timeout", "20"]
                subprocess.run(down, cwd=folder, capture_output=True)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    machines = Machines(tmp_path_factory.mktemp("machines"))
    try:
        yield machines
    finally:
        machines.close()


@pytest.mark.docker
@pytest.mark.skipif(not has_engine(), reason="there is no container engine here that docker info reaches")
@pytest.mark.timeout(3600)
def test_the_tutorials_with_docker(machines: Machines) -> None:
    """A machine with Docker, on the CPU; then a second one, which trains what the first has still to do."""
    printed = ""
    for kind, text in blocks("gpu-machine.md"):
        if kind == "output":
            assert_shown(text, printed, "gpu-machine.md")
        else:
            printed = machines.type_in(text)
    assert (machines.first / "best-run" / "weights.safetensors").exists()
    publish, invite, protect, accept, see, stop, revoke = [text for _, text in blocks("second-machine.md")]
    for text in (publish, invite, protect):
        machines.type_in(text)
    shutil.copy(machines.first / "invitation", machines.second / "invitation")
    machines.type_in(accept.splitlines()[0], on_the_second=True)
    with (machines.second / "workers" / ".env").open("a") as file:
        file.write("MIIII_DEVICE=cpu\nMIIII_LANES=1\n")
    machines.type_in(accept.splitlines()[1], on_the_second=True)
    machines.type_in(see)
    wait_for(lambda: "gpu2" in machines.type_in(see.splitlines()[-1]), seconds=600)
    machines.type_in(stop, on_the_second=True)
    machines.type_in(revoke)


def test_the_comparison_finds_what_differs() -> None:
    expected = "  1   1   solved   1,280   0.5\n…\nnext: a/b.toml in 39 s\n"
    assert_shown(expected, "1 7 pruned 96 0\nand\nnext: a/b.toml in 2 min", "page")
    with pytest.raises(AssertionError, match="which was not printed"):
        assert_shown(expected, "1 7 failed 96 0\nnext: a/b.toml in 2 s", "page")
    with pytest.raises(AssertionError, match="which was not printed"):
        assert_shown(expected, "1 7 pruned 96 0\nnext: a/c.toml in 2 s", "page")
