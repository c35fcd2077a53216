"""What the terminal shows: a study live and at its end, a run as it trains."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.text import Text

from miiii_search.cli.views.tables import Column, Fitted
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.experiment.text import SHORT_NAMES, format_params, format_value

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from miiii_search.study.replicates import SeedStats
    from miiii_search.study.status import Status
    from miiii_search.study.study import Study

COLOURS: dict[str, Literal["standard", "256", "truecolor"] | None] = {
    **dict.fromkeys(("", "0", "false")),
    "2": "256",
    "3": "truecolor",
}
"""What FORCE_COLOR asks for. Any other value asks for the 16 standard colours."""


FILE_WIDTH = 10_000
"""Columns where there is no terminal: a table in a file is as wide as it needs to be."""


def _make_console() -> Console:
    """Return a console for standard output. What moves the cursor is for a terminal alone, whatever is asked for.

    What a user named is shown as it is: neither [brackets] nor :colons: mean anything in it. FORCE_COLOR asks for
    colours in a log, too.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        return Console(highlight=False, markup=False, emoji=False, force_terminal=True)
    wanted = os.environ.get("FORCE_COLOR", "").lower()
    colours = COLOURS.get(wanted, "standard")
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=False,
        force_interactive=False,
        color_system=colours,
        width=FILE_WIDTH,
    )


console = _make_console()
LINE_SECONDS = 20.0
"""Between the lines that are said where there is no terminal."""

BARS = "▁▂▃▄▅▆▇█"
ENDED = ("complete", "pruned", "fail")
STATES = {"complete": "green", "pruned": "yellow", "fail": "red", "running": "cyan", "waiting": "dim"}


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def status_view(status: Status, rows: int = 16, *, advice: bool = True) -> RenderableType:
    """A study at one moment: counts, throughput, the best so far, the trials in the lanes, and the best that ended.

    With `advice`, also what it waits for; a caller that can print a command in one line prints that itself.
    """
    ended = sum(status.counts[name] for name in ENDED)
    parts: list[RenderableType] = [Head(status), Text(headline(status), overflow="fold")]
    if advice and (why := waiting_for(status)):
        parts.append(Text(why, style="yellow", overflow="fold"))
    if status.running:
        parts += [Text(), _lanes(status, rows)]
    if len(status.running) > rows:
        parts.append(Text(f"… and {len(status.running) - rows} more", style="dim"))
    if ended:
        parts += [Text(), _leaders(status)]
    if status.configurations:
        parts += [Text(), standings_table(status.configurations)]
    if status.counts["pruned"]:
        parts += [Text(), pruned_view(status, 3)]
    return Group(*parts)


def waiting_for(status: Status) -> str:
    """Returns why a study does not go on, or what no worker has, in a sentence; nothing if it goes on."""
    from miiii_search.trial_queue.leases import describe_abandoned

    if status.done or status.paused:
        return ""
    if status.abandoned:
        return f"{describe_abandoned(status.abandoned)}; start one: {status.advice}"
    if status.waits_for is not None:
        return f"waiting for {status.waits_for}; start one: {status.advice}"
    return ""


@dataclass(frozen=True)
class Head:
    """The first lines of a study: its name, a bar, and how many trials are in each state; one line if it fits."""

    status: Status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        status = self.status
        ended = sum(status.counts[name] for name in ENDED)
        counts = [Text(f"{count} {name}", STATES[name]) for name, count in status.counts.items() if count]
        name, told = Text(status.study, "bold", overflow="fold"), Text(f"{ended} of {status.n_trials} trials")
        line = Text("  ").join([name, _shares(status), told, *counts])
        if line.cell_len <= options.max_width:
            yield line
            return
        yield name
        bar = Text("  ").join([_shares(status), told])
        yield bar if bar.cell_len <= options.max_width else told
        if counts:
            yield Text("  ").join(counts)


def pruned_view(status: Status, rows: int | None = None) -> RenderableType:
    """The trials that were given up and why, in the rule's words; the last `rows` of them, or all."""
    shown = status.pruned[-rows:] if rows else status.pruned
    because = "because" if rows is None else "because, of the last ones"
    return Fitted(
        [
            Column("pruned", [str(trial.number) for trial in shown]),
            Column("at epoch", [f"{trial.epoch or 0:,}" for trial in shown]),
            Column(because, [trial.reason or "" for trial in shown], left=True, least=20, fold=True),
        ]
    )


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


def _lanes(status: Status, rows: int) -> Fitted:
    """The running trials, each in a row."""
    shown = status.running[:rows]
    cyan = STATES["running"]
    bars = [ProgressBar(total=status.epochs, completed=t.epoch, width=12, complete_style=cyan) for t in shown]
    return Fitted(
        [
            Column("trial", [str(t.number) for t in shown]),
            Column("epoch", [f"{t.epoch:,}" for t in shown]),
            Column("saved", [f"{t.saved_epoch:,}" if t.saved_epoch else "" for t in shown], rank=3),
            Column("", bars, left=True, rank=6, width=12),
            Column("by epoch", [Text(sparkline(t.curve), cyan) for t in shown], left=True, rank=5),
            Column("accuracy", [format_accuracy(t.curve[-1]) if t.curve else "" for t in shown]),
            Column("epochs/s", [f"{t.epochs_per_second:.0f}" for t in shown], rank=1),
            Column("parameters", [format_params(t.params, SHORT_NAMES) for t in shown], left=True, least=14, rank=2),
            Column("worker", [t.worker for t in shown], left=True, least=10),
            Column("heard", [f"{duration(t.silent_seconds)} ago" for t in shown]),
        ]
    )


def _leaders(status: Status) -> Fitted:
    """The best of the trials that have ended."""
    shown = status.best_trials
    curves = [[t.intermediate_values[epoch] for epoch in sorted(t.intermediate_values)] for t in shown]
    styles = [STATES[t.state.name.lower()] for t in shown]
    pictures = [Text(sparkline(curve), style) for curve, style in zip(curves, styles, strict=True)]
    return Fitted(
        [
            Column("best", [str(t.number) for t in shown]),
            Column("state", [_outcome(t) for t in shown], left=True),
            Column("solved at", [_solved_at(t) for t in shown]),
            Column("accuracy", [format_accuracy(curve[-1]) if curve else "" for curve in curves]),
            Column("by epoch", pictures, left=True, rank=2),
            Column("epochs", [f"{t.user_attrs.get('epochs_trained', 0):,}" for t in shown], rank=1),
            Column("parameters", [format_params(t.params, SHORT_NAMES) for t in shown], left=True, least=14),
        ]
    )


def standings_table(standings: Sequence[SeedStats], rows: int = 5) -> Fitted:
    """The best configurations over their seeds, by the median."""
    shown = standings[:rows]
    numbers = [", ".join(str(number) for number in sorted(trial.number for trial in s.trials)) for s in shown]
    points = [format_params(s.params, SHORT_NAMES) for s in shown]
    return Fitted(
        [
            Column("solved", [f"{s.solved}/{s.seeds}" for s in shown]),
            Column("median", [f"{s.median:,}" if s.median else "" for s in shown]),
            Column("worst", [f"{s.worst:,}" if s.worst else "" for s in shown]),
            Column("ended", [str(len(s.trials)) for s in shown], rank=1),
            Column("trials", numbers, least=6, rank=2),
            Column("configuration by the median of its seeds", points, left=True, least=14),
        ]
    )


def _outcome(trial: FrozenTrial) -> Text:
    state = trial.state.name.lower()
    return Text("solved" if trial.user_attrs.get("epochs_to_solve") else state, STATES[state])


def _solved_at(trial: FrozenTrial) -> str:
    solved = trial.user_attrs.get("epochs_to_solve")
    return f"{solved:,}" if solved else ""


def headline(status: Status) -> str:
    """Best so far, throughput and time left in a line."""
    best = "no trial completed yet"
    if status.best is not None:
        solved = status.best.user_attrs.get("epochs_to_solve")
        how = f"solved at epoch {solved:,}" if solved else f"accuracy {format_accuracy(status.best.value or 0.0)}"
        best = f"best: trial {status.best.number}, {how} ({format_params(status.best.params, SHORT_NAMES)})"
    used = "".join(
        f" · {used:.3g} of {limit:g} {name.replace('_', ' ')}" for name, (used, limit) in status.budget.items()
    )
    if status.done:
        why = f": {status.spent}" if status.spent and status.counts["waiting"] else ""
        return f"done{why} · {best}"
    if status.paused:
        saving = f", {status.counts['running']} trials are being saved" if status.counts["running"] else ""
        return f"paused{saving} · {best}{used}"
    if status.version_mismatch and not status.running:
        return f"waits for another version: {status.version_mismatch}\n{best}{used}"
    return f"{best} · {status.epochs_per_second:.0f} epochs/s · time left: {duration(status.seconds_left)}{used}"


def ranking(study: Study, rows: int = 20) -> RenderableType:
    """The ended trials, best first."""
    from miiii_search.study.best_trials import read_best_trials
    from miiii_search.study.finished_trials import read_varied_parameters

    n_ended = sum(n for state, n in study.counts().items() if state.is_finished())
    trials = read_best_trials(study, rows)
    # What was searched over; what is the same in all trials would only take room.
    varied = read_varied_parameters(study)
    metrics = [trial.user_attrs.get("metrics") for trial in trials]
    accuracies = [format_accuracy(m["validation_accuracy_mean"]) if m else "" for m in metrics]
    tested = [format_accuracy(sum(m["test_accuracy"]) / len(m["test_accuracy"])) if m else "" for m in metrics]
    columns = [
        Column("", [str(rank) for rank in range(1, len(trials) + 1)]),
        Column("trial", [str(trial.number) for trial in trials]),
        Column("state", [_outcome(trial) for trial in trials], left=True),
        Column("validation", accuracies),
        Column("test", tested, rank=2),
        Column("solved at", [_solved_at(trial) for trial in trials]),
        Column("epochs", [f"{trial.user_attrs.get('epochs_trained', 0):,}" for trial in trials], rank=4),
        Column("time", [duration(trial.user_attrs.get("seconds", 0)) for trial in trials], rank=3),
    ]
    each = [Column(SHORT_NAMES.get(name, name), [format_value(t.params.get(name)) for t in trials]) for name in varied]
    points = [format_params({name: trial.params.get(name) for name in varied}, SHORT_NAMES) for trial in trials]
    together = [Column("parameters", points, left=True, least=14, fold=True)] if varied else []
    title = Text(f"Study {study.name}: {n_ended} trials, best first", "bold", overflow="fold")
    more = [Text(f"… and {n_ended - rows} more", "dim")] if n_ended > rows else []
    return Group(title, Text(), Fitted([*columns, *each], [*columns, *together], rule=True), *more)
