"""A study in the terminal as it goes on; where there is no terminal, a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.live import Live

from miiii_search.search.status import read_status
from miiii_search.search.study import Study
from miiii_search.terminal.display import LINE_SECONDS, console, headline, status_view


@contextmanager
def live(study: Study) -> Iterator[Callable[[], bool]]:
    """Shows the study while the context lasts; call what it gives to look again. That says whether it is done."""
    if not console.is_interactive:
        said = time.monotonic()

        def look() -> bool:
            nonlocal said
            status = read_status(study)
            if time.monotonic() - said >= LINE_SECONDS or status.done:
                said = time.monotonic()
                counts = ", ".join(f"{count} {name}" for name, count in status.counts.items() if count)
                console.print(f"{counts} · {headline(status)}", soft_wrap=True, markup=False)
            return status.done

        yield look
        return
    with Live(status_view(read_status(study)), console=console, refresh_per_second=4) as shown:

        def update() -> bool:
            status = read_status(study)
            shown.update(status_view(status))
            return status.done

        yield update
