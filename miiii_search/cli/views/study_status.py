"""The state of a study at one moment, as `status`, `watch` and `up` show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.text import Text

from miiii_search.cli.views.formatting import ENDED_STATES, STATE_STYLES, format_duration, sparkline
from miiii_search.cli.views.rankings import leaders_table, seed_stats_table
from miiii_search.cli.views.tables import Column, FittedTable
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.experiment.text import SHORT_NAMES, format_params

if TYPE_CHECKING:
    from miiii_search.study.status import Status


def status_view(status: Status, rows: int = 16, *, advice: bool = True) -> RenderableType:
    """Return all that `status` shows: counts, throughput, running trials, the best ended and the last pruned trials.

    Args:
        status: The state of the study.
        rows: Maximum number of running trials to list.
        advice: Whether to include `waiting_for(status)`, which may contain a command. Here it is wrapped; a caller
            that wants the command in one line prints it itself.

    Returns:
        The view, for a Rich console of any width.
    """
    n_ended = sum(status.counts[name] for name in ENDED_STATES)
    parts: list[RenderableType] = [StudyHeader(status), Text(headline(status), overflow="fold")]
    if advice and (why := waiting_for(status)):
        parts.append(Text(why, style="yellow", overflow="fold"))
    if status.running:
        parts += [Text(), _running_table(status, rows)]
    if len(status.running) > rows:
        parts.append(Text(f"… and {len(status.running) - rows} more", style="dim"))
    if n_ended:
        parts += [Text(), leaders_table(status.best_trials)]
    if status.configurations:
        parts += [Text(), seed_stats_table(status.configurations)]
    if status.counts["pruned"]:
        parts += [Text(), pruned_table(status, 3)]
    return Group(*parts)


def waiting_for(status: Status) -> str:
    """Return what a study waits for, with the command that starts it; nothing if it makes progress."""
    from miiii_search.study.state import A_COORDINATOR
    from miiii_search.trial_queue.abandoned import describe_abandoned

    if status.done or status.paused:
        return ""
    if status.abandoned:
        return f"{describe_abandoned(status.abandoned)}; start one: {status.advice}"
    # A coordinator of any version may supervise a study; only its own training program may train it.
    if status.waits_for is not None and (status.version_mismatch is None or status.waits_for == A_COORDINATOR):
        return f"{status.state}; start one: {status.advice}"
    return ""


def headline(status: Status) -> str:
    """Return the best trial, the throughput, the time left and the budget of a study in one line."""
    from miiii_search.study.state import StudyState

    best = "no trial completed yet"
    if status.best is not None:
        solved = status.best.user_attrs.get("epochs_to_solve")
        how = f"solved at epoch {solved:,}" if solved else f"accuracy {format_accuracy(status.best.value or 0.0)}"
        best = f"best: trial {status.best.number}, {how} ({format_params(status.best.params, SHORT_NAMES)})"
    budget = "".join(
        f" · {used:.3g} of {limit:g} {name.replace('_', ' ')}" for name, (used, limit) in status.budget.items()
    )
    if status.done:
        why = f": {status.exhausted_limit}" if status.exhausted_limit and status.counts["waiting"] else ""
        return f"{status.state}{why} · {best}"
    if status.paused:
        saving = f", {status.counts['running']} trials are being saved" if status.counts["running"] else ""
        return f"{status.state}{saving} · {best}{budget}"
    if status.state == StudyState.WAITING_FOR_VERSION:
        return f"{status.state}: {status.version_mismatch}\n{best}{budget}"
    time_left, predicted = format_duration(status.seconds_left), status.predicted_epochs_per_second
    speed = f"{status.epochs_per_second:.0f} epochs/s{f' (predicted: {predicted:.0f})' if predicted else ''}"
    return f"{best} · {speed} · time left: {time_left}{budget}"


@dataclass(frozen=True)
class StudyHeader:
    """Name of a study, its progress bar and its number of trials in each state; in one line if that fits."""

    status: Status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield one line, or up to three if the console is too narrow."""
        status = self.status
        n_ended = sum(status.counts[name] for name in ENDED_STATES)
        counts = [Text(f"{count} {name}", STATE_STYLES[name]) for name, count in status.counts.items() if count]
        name, progress = Text(status.study, "bold", overflow="fold"), Text(f"{n_ended} of {status.n_trials} trials")
        line = Text("  ").join([name, _state_bar(status), progress, *counts])
        if line.cell_len <= options.max_width:
            yield line
            return
        yield name
        bar = Text("  ").join([_state_bar(status), progress])
        yield bar if bar.cell_len <= options.max_width else progress
        if counts:
            yield Text("  ").join(counts)


def pruned_table(status: Status, rows: int | None = None) -> RenderableType:
    """Return a table of the pruned trials with the pruner's reasons: the last `rows` of them, or all for None."""
    shown = status.pruned[-rows:] if rows else status.pruned
    because = "because" if rows is None else "because, of the last ones"
    return FittedTable(
        [
            Column("pruned", [str(trial.number) for trial in shown]),
            Column("at epoch", [f"{trial.epoch or 0:,}" for trial in shown]),
            Column(because, [trial.reason or "" for trial in shown], align_left=True, shrink_to=20, fold=True),
        ]
    )


def _state_bar(status: Status, width: int = 36) -> Text:
    """Return a bar of the whole study whose colors show the share of each trial state."""
    total = max(status.n_trials, sum(status.counts.values()), 1)
    bar, filled, count = Text(), 0, 0
    for name in (*ENDED_STATES, "running"):
        count += status.counts[name]
        # A state with any trials gets at least one mark.
        end = max(round(width * count / total), filled + (status.counts[name] > 0))
        bar.append("━" * (min(end, width) - filled), STATE_STYLES[name])
        filled = min(end, width)
    return bar.append("━" * (width - filled), "bright_black")


def _running_table(status: Status, rows: int) -> FittedTable:
    """Return a table of the running trials, with at most `rows` rows."""
    shown = status.running[:rows]
    style = STATE_STYLES["running"]
    bars = [ProgressBar(total=status.epochs, completed=t.epoch, width=12, complete_style=style) for t in shown]
    return FittedTable(
        [
            Column("trial", [str(t.number) for t in shown]),
            Column("epoch", [f"{t.epoch:,}" for t in shown]),
            Column("saved", [f"{t.saved_epoch:,}" if t.saved_epoch else "" for t in shown], drop_order=3),
            Column("", bars, align_left=True, drop_order=6, cell_width=12),
            Column("by epoch", [Text(sparkline(t.curve), style) for t in shown], align_left=True, drop_order=5),
            Column("accuracy", [format_accuracy(t.curve[-1]) if t.curve else "" for t in shown]),
            Column("epochs/s", [f"{t.epochs_per_second:.0f}" for t in shown], drop_order=1),
            Column(
                "parameters",
                [format_params(t.params, SHORT_NAMES) for t in shown],
                align_left=True,
                shrink_to=14,
                drop_order=2,
            ),
            Column("worker", [t.worker for t in shown], align_left=True, shrink_to=10),
            Column("heard", [f"{format_duration(t.silent_seconds)} ago" for t in shown]),
        ]
    )
