"""Writes to a standard output that fails, or that nobody reads."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterator

import pytest

from miiii_search.cli import streams
from miiii_search.cli.streams import GAP_NOTICE, PENDING_BYTES, REPLACE_HANDLER, Stream

LONG = b"x" * 70_000
"""More bytes than a pipe can buffer."""


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """Yield the two ends of a pipe, and close those that are still open."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        os.close(end)


def read(descriptor: int, size: int) -> bytes:
    """Read this many bytes."""
    found = b""
    while len(found) < size:
        found += os.read(descriptor, size - len(found))
    return found


def test_writes_in_order(pipe: list[int]) -> None:
    reading, writing = pipe
    stream = Stream(writing)
    lines = [f"line {k}\n".encode() for k in range(1000)]
    for line in lines:
        assert stream.write(line) == len(line)
    assert stream.end()
    assert read(reading, sum(map(len, lines))) == b"".join(lines)


def test_a_closed_reader_is_no_failure(pipe: list[int]) -> None:
    reading, writing = pipe
    stream = Stream(writing)
    assert not stream.is_lost()
    os.close(reading)
    pipe.remove(reading)
    assert stream.is_lost()
    for _ in range(3):
        assert stream.write(LONG) == len(LONG)
    assert stream.error is not None and stream.error.errno == errno.EPIPE
    assert stream.end()


def test_full_disk_is_a_failure() -> None:
    with open("/dev/full", "wb") as full:
        stream = Stream(full.fileno())
        assert stream.write(b"x") == 1
        assert stream.is_lost()
        assert not stream.end()


def test_nobody_reads(pipe: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A write still returns. Pending bytes arrive once somebody reads, and a notice marks the gap."""
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.01)
    reading, writing = pipe
    stream = Stream(writing)
    kept = [b"%d" % k * 100_000 + b"\n" for k in range(8)]
    for line in kept:
        stream.write(line)
    stream.write(b"dropped" * PENDING_BYTES)
    assert read(reading, sum(map(len, kept))) == b"".join(kept)
    stream.write(b"later\n")
    assert stream.end()
    assert read(reading, len(GAP_NOTICE) + 6) == GAP_NOTICE + b"later\n"


def test_required_output_waits_for_its_reader(pipe: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.0)
    reading, writing = pipe
    stream = Stream(writing)
    stream.required = True
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read(reading, 40 * len(LONG))))
    reader.start()
    for _ in range(40):
        stream.write(LONG)
    assert stream.end()
    reader.join()
    assert found == [LONG * 40]


def test_pipe_that_does_not_block(pipe: list[int]) -> None:
    """Another program that shares the pipe may have made it non-blocking."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    stream = Stream(writing)
    stream.required = True
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read(reading, len(LONG))))
    reader.start()
    stream.write(LONG)
    assert stream.end()
    reader.join()
    assert found == [LONG]


def test_writes_after_the_end_need_no_thread(pipe: list[int]) -> None:
    reading, writing = pipe
    stream = Stream(writing)
    assert stream.end()
    assert stream.write(b"last") == 4
    assert read(reading, 4) == b"last"


@pytest.mark.parametrize(
    ("encoding", "text", "written"),
    [
        ("ascii", "λ 0.5 · ━━ ▁▄█ …", b"lambda 0.5 - -- _:# ..."),
        ("latin-1", "λ · é", b"lambda \xb7 \xe9"),
        ("ascii", "字", b"?"),
        ("utf-8", "run-\udcff λ", b"run-\xff \xce\xbb"),
        ("ascii", "run-\udcff", b"run-\xff"),
    ],
)
def test_characters_that_cannot_be_encoded(encoding: str, text: str, written: bytes) -> None:
    file = io.TextIOWrapper(raw := io.BytesIO(), encoding=encoding, errors=REPLACE_HANDLER)
    file.write(text)
    file.flush()
    assert raw.getvalue() == written


def test_a_closed_terminal_is_no_failure() -> None:
    window, terminal = os.openpty()
    try:
        os.close(window)
        stream = Stream(terminal)
        assert stream.write(b"x") == 1
        assert stream.is_lost()
        assert stream.end()
    finally:
        os.close(terminal)
