"""How a process is told to end: by signals, or by the end of the one that started it."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable


def stop_on_signals() -> threading.Event:
    """Return an event that SIGINT, SIGTERM or SIGHUP sets; a second SIGINT or SIGTERM ends the process at once.

    A terminal that is closed may send SIGHUP several times, which means the same as once. Under nohup, SIGHUP stays
    ignored.
    """
    stop = threading.Event()
    asked, ask = os.pipe()

    def watch() -> None:
        told = 0
        while True:
            [number] = os.read(asked, 1)
            stop.set()
            told += number in (signal.SIGINT, signal.SIGTERM)
            if told == 2:
                os._exit(128 + number)

    # Not in a handler: it would run in the main thread, only once that comes out of compiling, and would wait for
    # ever for the event's lock where it interrupts the main thread with that lock in its hands.
    threading.Thread(target=watch, name="signals", daemon=True).start()
    os.set_blocking(ask, False)
    signal.set_wakeup_fd(ask)
    for number in _stop_signals():
        signal.signal(number, lambda number, frame: None)
    # The interpreter gives a signal its default action back while it ends: who had done all there was to do would be
    # reported as killed. What is ignored stays ignored.
    atexit.register(_ignore_signals)
    return stop


def end_at_hangup() -> None:
    """Handle SIGHUP, unless it is ignored, as SIGTERM: for a command that ends by Python's own handlers."""

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)

    if signal.SIGHUP in _stop_signals():
        signal.signal(signal.SIGHUP, end)


def _stop_signals() -> list[signal.Signals]:
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])]


def _ignore_signals() -> None:
    for number in _stop_signals():
        signal.signal(number, signal.SIG_IGN)


def at_parents_end(act: Callable[[], object]) -> None:
    """Acts when the process that started this one is gone: its end of our standard input closes."""

    def watch() -> None:
        # Not through sys.stdin, whose lock a thread that waits would hold at the interpreter's end.
        while os.read(0, 1024):
            pass
        act()

    threading.Thread(target=watch, daemon=True).start()
