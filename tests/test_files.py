"""Atomic writes: an existing file is unchanged until the new one is complete."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from miiii_search.files import NAME_LIMIT, check_writable, file_name, replace_file, write_file
from tests.limits import largest_file

not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "best.toml"
    write_file(path, "the first")
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        write_file(path, b"x" * 2000)
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == "the first"
    with pytest.raises(KeyboardInterrupt), replace_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == "the first"


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    write_file(path, "one")
    path.chmod(0o640)
    link.symlink_to(path)
    write_file(link, "two")
    assert link.is_symlink() and path.read_text() == "two" and stat.S_IMODE(path.stat().st_mode) == 0o640
    write_file(path, "three", private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_pipe_is_written_directly() -> None:
    """Devices are written directly, as in `best --out /dev/stdout | less`, and never replaced."""
    reader, writer = os.pipe()
    write_file(Path(f"/dev/fd/{writer}"), "text")
    os.close(writer)
    with open(reader) as file:
        assert file.read() == "text"
    write_file(Path(os.devnull), "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "missing" / "file", tmp_path / ("x" * (NAME_LIMIT + 1))):
        with pytest.raises(OSError):
            check_writable(path)
        with pytest.raises(OSError):
            write_file(path, "")
    write_file(tmp_path / ("x" * NAME_LIMIT), "a long name")


@not_root
def test_a_file_or_a_folder_that_is_read_only(tmp_path: Path) -> None:
    write_file(tmp_path / "file", "mine")
    (tmp_path / "file").chmod(0o400)
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "file")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "other")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("stem", ["demo", "a/b", "..", ".", "研" * 200, "x" * 300, "$x$"])
def test_file_names(stem: str, tmp_path: Path) -> None:
    names = {file_name(stem + end, suffix) for end in ("", "1", "2") for suffix in ("", "-best.toml")}
    assert len(names) == 6
    for name in names:
        assert len(name.encode()) <= NAME_LIMIT and "/" not in name
        (tmp_path / name).touch(exist_ok=False)
    assert file_name("demo", "-best.toml") == "demo-best.toml"
