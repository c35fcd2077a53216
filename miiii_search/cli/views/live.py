"""A study in the terminal as it goes on; where there is no terminal, a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.live import Live

from miiii_search.cli.views.display import LINE_SECONDS, console, headline, status_view, waiting_for
from miiii_search.study.status import StatusReader
from miiii_search.study.study import Study


@contextmanager
def live(study: Study) -> Iterator[Callable[[], bool]]:
    """Shows the study while the context lasts; call what it gives to look again. That says whether it is done."""
    reader = StatusReader(study)
    if not console.is_interactive:
        said = time.monotonic()

        def look() -> bool:
            nonlocal said
            if time.monotonic() - said < LINE_SECONDS and not study.is_done():
                return False
            said, status = time.monotonic(), reader.read(pruned=0)
            counts = ", ".join(f"{count} {name}" for name, count in status.counts.items() if count)
            why = f" · {waiting}" if (waiting := waiting_for(status)) else ""
            console.print(f"{counts} · {headline(status)}{why}", soft_wrap=True, markup=False)
            return status.done

        yield look
        return
    with Live(status_view(reader.read()), console=console, refresh_per_second=4) as shown:

        def update() -> bool:
            status = reader.read()
            shown.update(status_view(status))
            return status.done

        yield update
