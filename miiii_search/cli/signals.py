"""Requests to stop a process: by signals, or because the process that started it has ended."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable

from miiii_search.cli import exit_codes


def stop_on_signals() -> threading.Event:
    """Return an event that SIGINT, SIGTERM or SIGHUP sets; a second SIGINT or SIGTERM exits the process at once.

    A terminal that is closed may send SIGHUP several times, which counts as one request. Under nohup, SIGHUP stays
    ignored.
    """
    stop = threading.Event()
    read_end, write_end = os.pipe()

    def watch() -> None:
        n_requests = 0
        while True:
            [number] = os.read(read_end, 1)
            stop.set()
            n_requests += number in (signal.SIGINT, signal.SIGTERM)
            if n_requests == 2:
                os._exit(exit_codes.SECOND_SIGNAL + number)

    # A thread reads the signals from a pipe, since a Python handler has two problems. It runs in the main thread, and
    # only after a compilation there has ended. And if it interrupts the main thread while that holds the event's lock,
    # setting the event would deadlock.
    threading.Thread(target=watch, name="signals", daemon=True).start()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in _stop_signals():
        signal.signal(number, lambda number, frame: None)
    # While the interpreter exits, it restores the default actions of signals. A signal at that moment would make a
    # process that has finished its work look as if it had been killed. Signals that were ignored stay ignored.
    atexit.register(_ignore_signals)
    return stop


def treat_hangup_as_termination() -> None:
    """Turn SIGHUP into SIGTERM, unless it is ignored, for a command that exits by Python's default handlers."""

    def terminate(number: int, frame: object) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)

    if signal.SIGHUP in _stop_signals():
        signal.signal(signal.SIGHUP, terminate)


def _stop_signals() -> list[signal.Signals]:
    """Return the signals that request a stop; without SIGHUP if it is ignored, as under nohup."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])]


def _ignore_signals() -> None:
    for number in _stop_signals():
        signal.signal(number, signal.SIG_IGN)


def call_when_parent_ends(callback: Callable[[], object]) -> None:
    """Call a function when the process that started this one has ended, and with it our standard input."""

    def watch() -> None:
        # sys.stdin is avoided: this thread would hold its lock while the interpreter exits.
        while os.read(0, 1024):
            pass
        callback()

    threading.Thread(target=watch, daemon=True).start()
