"""Exits of a worker's process that do not wait for a thread that compiles."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from miiii_search.cli import exit_codes, streams
from miiii_search.cli.resolve import open_databases
from miiii_search.errors import AccessRefusedError


def exit_now(code: int) -> NoReturn:
    """Close the databases and exit.

    Unlike `sys.exit`, this does not wait for other threads: compilation cannot be interrupted.
    """
    open_databases.close()
    streams.flush()
    os._exit(code)


def exit_refused(error: AccessRefusedError, idle: bool) -> NoReturn:
    """Report that the database refuses the login, and end this process.

    Args:
        error: The refusal.
        idle: Whether to replace this process by one that only waits for a signal and holds no device, so that a
            container is not restarted.
    """
    waits = "; this worker waits without training: restart it once it is invited again" * idle
    print(f"error: {' '.join(str(error).split())}{waits}", file=sys.stderr)
    open_databases.close()
    streams.flush()
    if idle:
        candidates = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        awaited = {number for number in candidates if signal.getsignal(number) != signal.SIG_IGN}
        signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
        wait_for_signal = f"import signal; signal.sigwait({sorted(map(int, awaited))})"
        os.execv(sys.executable, [sys.executable, "-ISc", wait_for_signal])
    os._exit(exit_codes.REFUSED)
