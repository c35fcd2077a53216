"""The studies of a storage: the table that `list` shows, and what a study occupies in the database."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from miiii_search.cli.views.formatting import ENDED_STATES, STATE_STYLES, format_age, format_megabytes
from miiii_search.cli.views.tables import Column, FittedTable
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.storage.records import StudyContents
from miiii_search.study.overview import StudyOverview
from miiii_search.study.trials import STATE_NAMES

_STYLES = {"running": "cyan", "paused": "yellow", "done": "green"}
"""Rich style of each study state; others are dim."""


def studies_table(overviews: Sequence[StudyOverview], storage: str) -> RenderableType:
    """Return a table with one row per study; in a narrow terminal the counts are combined into fewer columns."""
    n = len(overviews)
    title = Text(f"{n} stud{'y' if n == 1 else 'ies'} in {storage}", "bold", overflow="fold")
    study = Column("study", [one.name for one in overviews], align_left=True, shrink_to=16, fold=True)
    states = [Text(one.state, _STYLES.get(one.state, "dim")) for one in overviews]
    state = Column("state", states, align_left=True, shrink_to=13, fold=True)
    best = Column("best", ["" if one.best is None else format_accuracy(one.best) for one in overviews])
    created = Column("created", [format_age(one.created) for one in overviews], align_left=True, drop_order=2)
    counts = [
        Column(name, [Text(str(n), STATE_STYLES[name]) if (n := one.counts[name]) else "" for one in overviews])
        for name in STATE_NAMES
    ]
    trials = Column("trials", [str(one.n_trials) for one in overviews])
    n_ended = [sum(one.counts[name] for name in ENDED_STATES) for one in overviews]
    ended = Column("ended", [f"{n}/{one.n_trials}" for n, one in zip(n_ended, overviews, strict=True)])
    running = Column("running", [str(one.counts["running"] or "") for one in overviews], drop_order=1)
    table = FittedTable(
        [study, state, trials, *counts, best, created],
        [study, state, ended, running, best, created],
        header_line=True,
    )
    return Group(title, Text(), table)


def describe_deleted(deleted: Mapping[str, datetime]) -> list[str]:
    """Return one line for each deleted study, with the command that creates it again.

    Args:
        deleted: The moment of deletion by the study's name.
    """
    return [
        f"study `{name}` was deleted {format_age(moment)}; "
        f"miiii-search create --study {shlex.quote(name)} creates it again"
        for name, moment in deleted.items()
    ]


def describe_contents(contents: StudyContents) -> str:
    """Return the number of trials, artifacts and checkpoints of a study and their size, in one line."""
    return (
        f"{contents.trials:,} trials, {contents.artifacts:,} artifacts, {contents.checkpoints:,} checkpoints, "
        f"{format_megabytes(contents.size)}"
    )
