"""A folder of results: one owner at a time, and all of its files change at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from miiii_search.errors import MiiiiSearchError
from miiii_search.runs import output_folder
from miiii_search.runs.output_folder import READY, newest_path, open_output

HOLD = """
import sys
from pathlib import Path
from miiii_search.runs.output_folder import open_output
with open_output(Path(sys.argv[1])) as output:
    (output.unfinished / "half").write_text("half")
    print("holds it", flush=True)
    sys.stdin.read()
"""


def write(folder: Path, text: str, snapshots: tuple[int, ...] = ()) -> None:
    with open_output(folder) as output:
        (output.unfinished / "a").write_text(text)
        (output.unfinished / "b").write_text(text)
        (output.unfinished / "snapshots").mkdir()
        for epoch in snapshots:
            (output.unfinished / "snapshots" / f"epoch-{epoch}.npz").write_text(text)
        output.publish()


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_published_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "latest"
    write(folder, "one", (256, 512))
    (folder / "snapshots" / "notes.txt").write_text("mine")
    (folder / "notes.txt").write_text("mine")
    mine = {"notes.txt": "mine", "snapshots/notes.txt": "mine"}
    write(folder, "two", (256,))
    assert contents(folder) == {"a": "two", "b": "two", "snapshots/epoch-256.npz": "two", **mine}
    write(folder, "three")
    assert contents(folder) == {"a": "three", "b": "three", **mine}
    with pytest.raises(ZeroDivisionError), open_output(folder) as output:
        (output.unfinished / "a").write_text("never")
        raise ZeroDivisionError
    assert contents(folder) == {"a": "three", "b": "three", **mine}
    with pytest.raises(ZeroDivisionError), open_output(tmp_path / "new"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


@pytest.mark.process
def test_a_folder_has_one_owner_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "holds it\n"
        with pytest.raises(
            MiiiiSearchError, match=f"is being written by process {owner.pid} on .*; wait .* another --out$"
        ):
            write(folder, "second")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    write(folder, "second")
    assert contents(folder) == {"a": "second", "b": "second"}


@pytest.mark.parametrize("step", range(8))
def test_a_process_that_is_killed_while_it_publishes(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers find the new files at every moment, and the next process completes the move."""

    class Killed(BaseException):
        pass

    write(tmp_path, "old", (256, 512))
    (tmp_path / "snapshots" / "notes.txt").write_text("mine")
    steps, rename, unlink = [0], os.rename, os.unlink

    def count() -> None:
        steps[0] += 1
        if steps[0] > step + 1:  # the first one makes it ready
            raise Killed

    def counted_rename(old: Path, new: Path) -> None:
        count()
        rename(old, new)

    def counted_unlink(path: Path) -> None:
        if path.suffix == ".npz":
            count()
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", counted_rename)
        patch.setattr(os, "replace", counted_rename)
        patch.setattr(os, "unlink", counted_unlink)
        try:
            write(tmp_path, "new", (256,))
        except Killed:
            assert (tmp_path / READY).is_dir()
    assert {newest_path(tmp_path, name).read_text() for name in ("a", "b", "snapshots/epoch-256.npz")} == {"new"}
    with open_output(tmp_path):
        pass
    mine = {"snapshots/notes.txt": "mine"}
    assert contents(tmp_path) == {"a": "new", "b": "new", "snapshots/epoch-256.npz": "new", **mine}


def test_a_lock_file_that_a_killed_process_left_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / output_folder.LOCK).write_text("process 1 on elsewhere")
    write(tmp_path, "one")
    assert contents(tmp_path) == {"a": "one", "b": "one"}
