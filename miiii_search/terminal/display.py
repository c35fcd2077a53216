"""What the terminal shows: a study live and at its end, a run as it trains."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from miiii_search.experiment.metrics import accuracy_text

if TYPE_CHECKING:
    from miiii_search.search.replicates import Standing
    from miiii_search.search.status import Status
    from miiii_search.search.study import Study

COLOURS: dict[str, Literal["standard", "256", "truecolor"] | None] = {
    **dict.fromkeys(("", "0", "false")),
    "2": "256",
    "3": "truecolor",
}
"""What FORCE_COLOR asks for. Any other value asks for the 16 standard colours."""


def _make_console() -> Console:
    """Return a console for standard output. What moves the cursor is for a terminal alone, whatever is asked for.

    FORCE_COLOR asks for colours in a log, too.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        return Console(highlight=False, force_terminal=True)
    wanted = os.environ.get("FORCE_COLOR", "").lower()
    colours = COLOURS.get(wanted, "standard")
    # A table in a file is as wide as it needs to be.
    return Console(highlight=False, force_terminal=False, force_interactive=False, color_system=colours, width=130)


console = _make_console()
LINE_SECONDS = 20.0
"""Between the lines that are said where there is no terminal."""

BARS = "▁▂▃▄▅▆▇█"
ENDED = ("complete", "pruned", "fail")
STATES = {"complete": "green", "pruned": "yellow", "fail": "red", "running": "cyan", "waiting": "dim"}

WIDE = 120
"""Columns of a terminal that has room for pictures beside the figures."""


def command_name() -> str:
    """How the user types our command, as they just did."""
    typed = sys.argv[0]
    on_path = shutil.which("miiii-search")
    if os.path.basename(typed) == "__main__.py":
        return "python -m miiii_search"
    return "miiii-search" if on_path and os.path.realpath(on_path) == os.path.realpath(typed) else typed


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def status_view(status: Status, rows: int = 16) -> RenderableType:
    """A study at one moment: counts, throughput, the best so far, the trials in the lanes, and the best that ended."""
    ended = sum(status.counts[name] for name in ENDED)
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(status.study, style="bold"),
        _shares(status),
        f"{ended} of {status.n_trials} trials",
        Text("  ").join(Text(f"{count} {name}", STATES[name]) for name, count in status.counts.items() if count),
    )
    parts: list[RenderableType] = [head, Text(headline(status))]
    if status.running:
        parts += [Text(), _lanes(status, rows)]
    if len(status.running) > rows:
        parts.append(Text(f"… and {len(status.running) - rows} more", style="dim"))
    if ended:
        parts += [Text(), _leaders(status)]
    if status.standings:
        parts += [Text(), standings_table(status.standings)]
    if status.counts["pruned"]:
        parts += [Text(), pruned_view(status, 3)]
    return Group(*parts)


def pruned_view(status: Status, rows: int | None = None) -> RenderableType:
    """The trials that were given up and why, in the rule's words; the last `rows` of them, or all."""
    from miiii_search.search.status import pruned

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("pruned", justify="right", vertical="top")
    table.add_column("at epoch", justify="right", vertical="top")
    table.add_column("because" if rows is None else "because, of the last ones")
    given_up = pruned(status.trials)
    for trial in given_up[-rows:] if rows else given_up:
        attributes = trial.user_attrs
        table.add_row(str(trial.number), f"{attributes.get('epochs_trained', 0):,}", Text(attributes.get("reason", "")))
    return table


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Values between 0 and 1 as so many bars at most, the first and the last one among them."""
    last = len(values) - 1
    shown = values if last < width else [values[round(k * last / (width - 1))] for k in range(width)]
    return "".join(BARS[min(max(int(value * len(BARS)), 0), len(BARS) - 1)] for value in shown)


def _shares(status: Status, width: int = 36) -> Text:
    """A bar of the whole study in the colours of its trials' states."""
    total = max(status.n_trials, sum(status.counts.values()), 1)
    bar, until, count = Text(), 0, 0
    for name in (*ENDED, "running"):
        count += status.counts[name]
        # Whoever is there is seen, if only by one mark.
        end = max(round(width * count / total), until + (status.counts[name] > 0))
        bar.append("━" * (min(end, width) - until), STATES[name])
        until = min(end, width)
    return bar.append("━" * (width - until), "bright_black")


def _lanes(status: Status, rows: int) -> Table:
    """A row a running trial."""
    wide = console.width >= WIDE
    pictures = ("", "by epoch") if wide else ()
    table = _table("trial", "epoch", "saved", *pictures, "accuracy", "epochs/s", "parameters", "worker", "heard")
    for trial in status.running[:rows]:
        bar = ProgressBar(total=status.epochs, completed=trial.epoch, width=12, complete_style=STATES["running"])
        table.add_row(
            str(trial.number),
            f"{trial.epoch:,}",
            f"{trial.saved_epoch:,}" if trial.saved_epoch else "",
            *((bar, Text(sparkline(trial.curve), STATES["running"])) if wide else ()),
            accuracy_text(trial.curve[-1]) if trial.curve else "",
            f"{trial.epochs_per_second:.0f}",
            _cut(_point(trial.params)),
            _cut(trial.worker),
            f"{duration(trial.silent_seconds)} ago",
        )
    return table


def _leaders(status: Status, rows: int = 5) -> Table:
    """The best of the trials that have ended."""
    from miiii_search.search.status import ranked

    table = _table("best", "state", "solved at", "accuracy", "by epoch", "epochs", "parameters")
    for trial in ranked(status.trials)[:rows]:
        attributes, state = trial.user_attrs, trial.state.name.lower()
        solved = attributes.get("epochs_to_solve")
        reports = trial.intermediate_values
        curve = [reports[epoch] for epoch in sorted(reports)]
        table.add_row(
            str(trial.number),
            Text("solved" if solved else state, STATES[state]),
            f"{solved:,}" if solved else "",
            accuracy_text(curve[-1]) if curve else "",
            Text(sparkline(curve), STATES[state]),
            f"{attributes.get('epochs_trained', 0):,}",
            _cut(_point(trial.params)),
        )
    return table


def standings_table(standings: Sequence[Standing], rows: int = 5) -> Table:
    """The best configurations over their seeds, by the median."""
    table = _table("solved", "median", "worst", "ended", "trials", "configuration by the median of its seeds")
    for standing in standings[:rows]:
        table.add_row(
            f"{standing.solved}/{standing.seeds}",
            *(f"{epochs:,}" if epochs else "" for epochs in (standing.median, standing.worst)),
            str(len(standing.trials)),
            _cut(", ".join(str(number) for number in sorted(trial.number for trial in standing.trials))),
            _cut(_point(standing.params)),
        )
    return table


def _cut(text: str) -> Text:
    """Cut where the terminal is narrow, so that a trial is a line."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        is_point = name.startswith("configuration")
        left = is_point or name in ("", "state", "by epoch", "parameters", "worker")
        # Rich makes narrower what may be wrapped, before all else; see `_cut`.
        is_long = is_point or name in ("parameters", "worker", "trials")
        table.add_column(name, justify="left" if left else "right", no_wrap=not is_long, overflow="ellipsis")
    return table


def headline(status: Status) -> str:
    """Best so far, throughput and time left in a line."""
    best = "no trial completed yet"
    if status.best is not None:
        solved = status.best.user_attrs.get("epochs_to_solve")
        how = f"solved at epoch {solved:,}" if solved else f"accuracy {accuracy_text(status.best.value or 0.0)}"
        best = f"best: trial {status.best.number}, {how} ({_point(status.best.params)})"
    used = "".join(
        f" · {used:.3g} of {limit:g} {name.replace('_', ' ')}" for name, (used, limit) in status.budget.items()
    )
    if status.done:
        why = f": {status.spent}" if status.spent and status.counts["waiting"] else ""
        return f"done{why} · {best}"
    if status.paused:
        saving = f", {status.counts['running']} trials are being saved" if status.counts["running"] else ""
        return f"paused{saving} · {best}{used}"
    if status.mismatch and not status.running:
        return f"waits for another version: {status.mismatch}\n{best}{used}"
    return f"{best} · {status.epochs_per_second:.0f} epochs/s · time left: {duration(status.seconds_left)}{used}"


def ranking(study: Study, rows: int = 20) -> Table:
    """The ended trials, best first."""
    from miiii_search.search.status import ranked

    trials = ranked(study.trials())
    table = Table(
        title=Text(f"Study {study.name}: {len(trials)} trials, best first"),  # no markup of a user's
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    # A column for what was searched over; what is the same in all trials would only take room.
    names = [name for name in study.spec.space if len({str(trial.params.get(name)) for trial in trials}) > 1]
    columns = ["", "trial", "state", "validation", "test", "solved at", "epochs", "time"]
    for column in [*columns, *(_SHORT.get(name, name) for name in names)]:
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
    for rank, trial in enumerate(trials[:rows], start=1):
        attributes, state = trial.user_attrs, trial.state.name.lower()
        solved = attributes.get("epochs_to_solve")
        metrics = attributes.get("metrics")
        table.add_row(
            str(rank),
            str(trial.number),
            Text("solved" if solved else state, style=STATES[state]),
            accuracy_text(metrics["validation_accuracy_mean"]) if metrics else "",
            accuracy_text(sum(metrics["test_accuracy"]) / len(metrics["test_accuracy"])) if metrics else "",
            f"{solved:,}" if solved else "",
            f"{attributes.get('epochs_trained', 0):,}",
            duration(attributes.get("seconds", 0)),
            *(_value(trial.params.get(name)) for name in names),
        )
    if len(trials) > rows:
        table.caption = f"… and {len(trials) - rows} more"
    return table


def _point(params: dict[str, object]) -> str:
    return ", ".join(f"{_SHORT.get(name, name)} {_value(value)}" for name, value in params.items())


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_SHORT = {
    "grokfast_lambda": "λ",
    "weight_decay": "wd",
    "learning_rate": "lr",
    "d_model": "d",
    "n_heads": "heads",
}
"""The paper's names in Table 1, where a line must hold a whole configuration."""
