"""What the terminal shows of the studies of a storage."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from miiii_search.cli.views.display import ENDED, STATES, duration
from miiii_search.cli.views.tables import Column, Fitted
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.study.delete import StudyContents
from miiii_search.study.overview import ORDER, StudyOverview

_STYLES = {"running": "cyan", "paused": "yellow", "done": "green"}


def studies_table(listed: Sequence[StudyOverview], storage: str) -> RenderableType:
    """The studies, each in a row; in a narrow terminal with fewer figures."""
    title = Text(f"{len(listed)} stud{'y' if len(listed) == 1 else 'ies'} in {storage}", "bold", overflow="fold")
    study = Column("study", [one.name for one in listed], left=True, least=16, fold=True)
    states = [Text(one.state, _STYLES.get(one.state, "dim")) for one in listed]
    state = Column("state", states, left=True, least=13, fold=True)
    best = Column("best", ["" if one.best is None else format_accuracy(one.best) for one in listed])
    created = Column("created", [_ago(one.created) for one in listed], left=True, rank=2)
    counts = [
        Column(name, [Text(str(n), STATES[name]) if (n := one.counts[name]) else "" for one in listed])
        for name in ORDER
    ]
    of = Column("trials", [str(one.n_trials) for one in listed])
    ended = [sum(one.counts[name] for name in ENDED) for one in listed]
    shares = [f"{n}/{one.n_trials}" for n, one in zip(ended, listed, strict=True)]
    running = Column("running", [str(one.counts["running"] or "") for one in listed], rank=1)
    table = Fitted(
        [study, state, of, *counts, best, created],
        [study, state, Column("ended", shares), running, best, created],
        rule=True,
    )
    return Group(title, Text(), table)


def describe_deleted(deleted: Mapping[str, datetime]) -> list[str]:
    """One line for each deleted study that no coordinator creates again."""
    return [
        f"study `{name}` was deleted {_ago(moment)}; miiii-search create --study {shlex.quote(name)} creates it again"
        for name, moment in deleted.items()
    ]


def describe_holdings(holdings: StudyContents) -> str:
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
