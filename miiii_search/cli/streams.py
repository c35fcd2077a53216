"""Standard output and error that never stop the work.

A command that trains must not fail because its log cannot be written: because the disk is full, the terminal was
closed, `head` has read enough, or nobody reads at all. `GuardedStreams` replaces the standard streams of a process.
The new ones never raise an error and never block for long. If the output is the result of the command, they also
decide the exit code.
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

from miiii_search.cli import exit_codes

STALL_SECONDS = 5.0
"""Seconds that a write waits for a reader that has stopped reading, such as a suspended terminal or a full pipe."""

PENDING_BYTES = 1 << 20
"""Number of bytes that are kept for such a reader. Further output is dropped."""

GAP_NOTICE = b"... (lines are missing here: nobody read them in time)\n"

BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"

REPLACEMENTS = dict(zip(BARS, ASCII_BARS, strict=True)) | {
    "λ": "lambda",
    "β": "beta",
    "·": "-",
    "…": "...",
    "━": "-",
    "−": "-",
    "×": "x",
    "≥": ">=",
    "≤": "<=",
}
"""Replacements for characters that the encoding of a stream cannot represent."""


def _replace_unencodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace a character that cannot be encoded: bytes of a file name by themselves, others by similar characters."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # from a file name or an argument that is not UTF-8
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return REPLACEMENTS.get(character, "?"), error.start + 1


REPLACE_HANDLER = "miiii-search-nearest"
codecs.register_error(REPLACE_HANDLER, _replace_unencodable)


class Stream(io.RawIOBase):
    """A stream that writes to a file descriptor and never raises an error.

    A write waits at most `STALL_SECONDS`, unless the output is `required`. The bytes are written by a thread, so that a
    slow reader does not block the caller. Normally the caller waits for the thread, so that lines on standard output
    and standard error keep their order.

    Args:
        descriptor: The file descriptor.
    """

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | None = None
        """The first error of a write, if any."""
        self.required = False
        """Whether the output is the result of the command, so that writes wait for a slow reader."""
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._pending = bytearray()
        self._accepted = self._handled = 0
        self._stalled = self._has_gap = self._ended = False
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True, as `io.RawIOBase` asks for."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes, or drop them if the reader has stalled and too many are pending. Return their number."""
        data = bytes(data)
        with self._changed:
            if self._ended:
                if not self._pending:
                    self._put(data)
                return len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"stream {self._descriptor}", daemon=True)
                self._thread.start()
            if self._pending and len(self._pending) + len(data) > PENDING_BYTES and not self.required:
                self._has_gap = True
                return len(data)
            added = GAP_NOTICE * self._has_gap + data
            self._has_gap = False
            self._pending += added
            self._accepted += len(added)
            self._changed.notify_all()
            self._wait()
        return len(data)

    def end(self) -> bool:
        """Wait until all pending bytes are written, and end the thread. Later writes are made by the caller.

        Returns:
            Whether everything was written, or only a reader is missing that has read enough.
        """
        with self._changed:
            self._stalled = False
            self._wait()
            self._ended = True
            self._changed.notify_all()
        return self.error is None or self._has_no_reader(self.error)

    def is_lost(self) -> bool:
        """Return whether further output is lost, since a write failed or the reader of the pipe has closed it."""
        if self.error is not None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    def _has_no_reader(self, error: OSError) -> bool:
        """Return whether a write failed because the reader has closed the pipe, or because a terminal was closed."""
        is_device = stat.S_ISCHR(os.fstat(self._descriptor).st_mode)
        return error.errno == errno.EPIPE or (error.errno == errno.EIO and is_device)

    def _wait(self) -> None:
        target = self._accepted
        seconds = None if self.required else 0.0 if self._stalled else STALL_SECONDS
        self._stalled = not self._changed.wait_for(lambda: self._handled >= target, seconds)

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


class GuardedStreams(ContextDecorator):
    """Context in which the standard streams never raise an error.

    At its end, the exit code becomes 1 if the required output of a successful command could not be written.
    """

    def __enter__(self) -> None:
        for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
            if getattr(sys, name) is not getattr(sys, f"__{name}__"):
                continue  # replaced by a caller that captures the output, such as a test
            if getattr(sys, name) is None:
                # The caller has closed it. The next file to be opened, such as a database, would get its number.
                setattr(sys, name, _open_null(descriptor))
            elif name != "stdin":
                setattr(sys, name, _protect(getattr(sys, name), descriptor))
        if "--help" in sys.argv:
            require_output()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        flush()
        output, errors = stream_of(sys.stdout), stream_of(sys.stderr)
        failed = output is not None and not output.end()
        if output is not None and output.error is not None and failed:
            kind_of_line = "error" if output.required else "warning"
            print(f"{kind_of_line}: cannot write standard output: {output.error.strerror}", file=sys.stderr)
        if errors is not None:
            sys.stderr.flush()
            errors.end()
        succeeded = error is None or (isinstance(error, SystemExit) and not error.code)
        if failed and succeeded and output is not None and output.required:
            raise SystemExit(exit_codes.FAILURE) from None


def require_output() -> None:
    """Declare that the output is the result of the command: it waits for its reader, and fails without one."""
    if (output := stream_of(sys.stdout)) is not None:
        output.required = True


def is_output_lost() -> bool:
    """Return whether further lines on standard output are lost."""
    output = stream_of(sys.stdout)
    return output is not None and output.is_lost()


def flush() -> None:
    """Write buffered output, before the process exits without the interpreter's cleanup."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def stream_of(file: Any) -> Stream | None:
    """Return the `Stream` to which a text file writes, or None if it is of another kind."""
    raw = getattr(getattr(file, "buffer", None), "raw", None)
    return raw if isinstance(raw, Stream) else None


def _protect(file: TextIO, descriptor: int) -> TextIO:
    """Return a text file with the same encoding that writes to the descriptor and never raises an error."""
    return io.TextIOWrapper(
        io.BufferedWriter(Stream(descriptor)),
        encoding=file.encoding,
        errors=REPLACE_HANDLER,
        line_buffering=bool(file.line_buffering) or getattr(file, "write_through", False),
    )


def _open_null(descriptor: int) -> TextIO:
    """Return a file that is always empty and discards output, and that has the number of a closed descriptor."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    os.set_inheritable(descriptor, True)
    return open(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False)
