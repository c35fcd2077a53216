"""Standard output and error that never end the work.

A command that trains must not fail because its log cannot be written: the disk is full, the terminal was closed, `head`
has read enough, or nobody reads at all. `guarded` replaces the standard streams of a process by ones that never raise
and never block for long. It also decides the exit code where the output was what the user asked for.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import stat
import sys
import threading
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, TextIO

STALL_SECONDS = 5.0
"""How long a write waits for a reader that does not read, such as a stopped terminal or a pipe that nobody empties."""

PENDING_BYTES = 1 << 20
"""How much is kept for such a reader. What is written beyond that is dropped."""

GAP = b"... (lines are missing here: nobody read them in time)\n"

NEAREST = {"λ": "lambda", "β": "beta", "·": "-", "…": "...", "━": "-", "−": "-", "×": "x", "≥": ">=", "≤": "<="} | dict(
    zip("▁▂▃▄▅▆▇█", "_.-:=+*#", strict=True)
)
"""What is written for a character that the encoding of a stream does not have."""


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode what an encoding lacks: bytes of a file name as they were, other characters as something near them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # from a file name or an argument that is not UTF-8
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return NEAREST.get(character, "?"), error.start + 1


NEAREST_NAME = "miiii-search-nearest"
codecs.register_error(NEAREST_NAME, _nearest)


class Stream(io.RawIOBase):
    """A file descriptor to write to. `write` never raises, and waits `STALL_SECONDS` at most unless `needed`.

    A thread writes, so that no caller is blocked by a reader. A caller waits for it as a rule, so that the lines of
    standard output and standard error keep their order.
    """

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | None = None
        """Why something could not be written: the first such error."""
        self.needed = False
        """Whether the output is what the command is for, so that it waits for a slow reader."""
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._pending = bytearray()
        self._accepted = self._handled = 0
        self._stalled = self._has_gap = self._ended = False
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        data = bytes(data)
        with self._changed:
            if self._ended:
                if not self._pending:
                    self._put(data)
                return len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"stream {self._descriptor}", daemon=True)
                self._thread.start()
            if self._pending and len(self._pending) + len(data) > PENDING_BYTES and not self.needed:
                self._has_gap = True
                return len(data)
            added = GAP * self._has_gap + data
            self._has_gap = False
            self._pending += added
            self._accepted += len(added)
            self._changed.notify_all()
            self._wait()
        return len(data)

    def end(self) -> bool:
        """Wait for what is pending; return whether all was written. Later writes do without the thread, which ends."""
        with self._changed:
            self._stalled = False
            self._wait()
            self._ended = True
            self._changed.notify_all()
        return self.error is None or self._has_no_reader(self.error)

    def is_lost(self) -> bool:
        """Return whether nothing that is written arrives anywhere: it failed, or the reader of a pipe has gone."""
        if self.error is not None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    def _has_no_reader(self, error: OSError) -> bool:
        """Return whether a write failed only because `head` has seen enough, or because a terminal was closed."""
        is_device = stat.S_ISCHR(os.fstat(self._descriptor).st_mode)
        return error.errno == errno.EPIPE or (error.errno == errno.EIO and is_device)

    def _wait(self) -> None:
        upto = self._accepted
        seconds = None if self.needed else 0.0 if self._stalled else STALL_SECONDS
        self._stalled = not self._changed.wait_for(lambda: self._handled >= upto, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._ended)
                if not (data := bytes(self._pending)):
                    return
            if not (written := self._put(data)):
                select.select([], [self._descriptor], [])
            with self._changed:
                del self._pending[:written]
                self._handled += written
                self._stalled = False
                self._changed.notify_all()

    def _put(self, data: bytes) -> int:
        """Write some of the data, or drop it if that fails; return how many bytes need not be written again."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # another program that has the descriptor made it non-blocking
            return 0
        except OSError as error:
            self.error = self.error or error
            return len(data)


class guarded(ContextDecorator):
    """The standard streams of a command while it lasts, and its exit code where the output could not be written."""

    def __enter__(self) -> None:
        for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
            if getattr(sys, name) is not getattr(sys, f"__{name}__"):
                continue  # somebody captures it
            if getattr(sys, name) is None:
                # Closed by the caller. The next file that is opened, such as a database, would get its number.
                setattr(sys, name, _open_null(descriptor))
            elif name != "stdin":
                setattr(sys, name, _protect(getattr(sys, name), descriptor))
        if "--help" in sys.argv:
            need_output()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        flush()
        output, errors = stream_of(sys.stdout), stream_of(sys.stderr)
        failed = output is not None and not output.end()
        if output is not None and output.error is not None and failed:
            kind_of_line = "error" if output.needed else "warning"
            print(f"{kind_of_line}: cannot write standard output: {output.error.strerror}", file=sys.stderr)
        if errors is not None:
            sys.stderr.flush()
            errors.end()
        succeeded = error is None or (isinstance(error, SystemExit) and not error.code)
        if failed and succeeded and output is not None and output.needed:
            raise SystemExit(1) from None


def need_output() -> None:
    """Declare that the command's output is its result: it waits for its reader, and fails if it cannot be written."""
    if (output := stream_of(sys.stdout)) is not None:
        output.needed = True


def is_lost() -> bool:
    """Return whether nobody can see what is written to standard output."""
    output = stream_of(sys.stdout)
    return output is not None and output.is_lost()


def flush() -> None:
    """Write what is buffered, before a process ends without saying so to the interpreter."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def stream_of(file: Any) -> Stream | None:
    """Return the stream below a text file, or None if it is another's."""
    raw = getattr(getattr(file, "buffer", None), "raw", None)
    return raw if isinstance(raw, Stream) else None


def _protect(file: TextIO, descriptor: int) -> TextIO:
    """Return a text file like this one that writes to the descriptor and never raises."""
    return io.TextIOWrapper(
        io.BufferedWriter(Stream(descriptor)),
        encoding=file.encoding,
        errors=NEAREST_NAME,
        line_buffering=bool(file.line_buffering) or getattr(file, "write_through", False),
    )


def _open_null(descriptor: int) -> TextIO:
    """Return a file that reads nothing and writes nowhere, with the number of a descriptor that was closed."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    os.set_inheritable(descriptor, True)
    return open(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False)
