"""What the terminal shows of the studies of a storage."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from miiii_search.experiment.metrics import accuracy_text
from miiii_search.search.deleting import Holdings
from miiii_search.search.listing import ORDER, Listed
from miiii_search.terminal.display import STATES, duration

_STYLES = {"running": "cyan", "paused": "yellow", "done": "green"}


def studies_table(listed: Sequence[Listed], storage: str) -> Table:
    """The studies, one a row."""
    title = Text(f"{len(listed)} stud{'y' if len(listed) == 1 else 'ies'} in {storage}")  # no markup of a user's
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("study", "state", "trials", *ORDER, "best", "created"):
        left = name in ("study", "state", "created")
        table.add_column(name, justify="left" if left else "right", overflow="fold" if name == "study" else "ellipsis")
    for study in listed:
        table.add_row(
            Text(study.name),
            Text(study.state, style=_STYLES.get(study.state, "dim")),
            str(study.n_trials),
            *(Text(str(n), style=STATES[name]) if (n := study.counts[name]) else "" for name in ORDER),
            "" if study.best is None else accuracy_text(study.best),
            _ago(study.created),
        )
    return table


def describe_deleted(deleted: Mapping[str, datetime]) -> list[str]:
    """One line for each deleted study that no coordinator creates again."""
    return [
        f"study `{name}` was deleted {_ago(moment)}; miiii-search create --study {shlex.quote(name)} creates it again"
        for name, moment in deleted.items()
    ]


def describe_holdings(holdings: Holdings) -> str:
    """What a study has in the database, in a line."""
    return (
        f"{holdings.trials:,} trials, {holdings.artifacts:,} artifacts, {holdings.checkpoints:,} checkpoints, "
        f"{megabytes(holdings.size)}"
    )


def megabytes(size: int) -> str:
    """Bytes as a person says them."""
    return f"{size / 1e6:,.1f} MB"


def _ago(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return f"{duration(max((datetime.now(UTC) - moment).total_seconds(), 0.0))} ago"
