"""A study whose view is refreshed in place, or as a line every 20 seconds if standard output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.live import Live

from miiii_search.cli.views.console import LINE_SECONDS, console, print_line
from miiii_search.cli.views.study_status import headline, status_view, waiting_for
from miiii_search.study.status import Status, StatusReader
from miiii_search.study.study import Study


@contextmanager
def live_view(study: Study) -> Iterator[Callable[[], bool]]:
    """Show a study until the context ends.

    Yields:
        A function that reads the study, refreshes the view, and returns whether the study is done.
    """
    reader = StatusReader(study)
    if not console.is_interactive:
        printed_at = time.monotonic()

        def print_now_and_then() -> bool:
            nonlocal printed_at
            if time.monotonic() - printed_at < LINE_SECONDS and not study.is_done():
                return False
            printed_at, status = time.monotonic(), reader.read(pruned=0)
            print_line(_in_one_line(status))
            return status.done

        yield print_now_and_then
        return
    with Live(status_view(reader.read()), console=console, refresh_per_second=4) as view:

        def update() -> bool:
            status = reader.read()
            view.update(status_view(status))
            return status.done

        yield update


def _in_one_line(status: Status) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in status.counts.items() if count)
    why = f" · {waiting}" if (waiting := waiting_for(status)) else ""
    return f"{counts} · {headline(status)}{why}"
