"""Tables of the best trials of a study, and of the best configurations over their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from miiii_search.cli.views.formatting import STATE_STYLES, format_duration, sparkline
from miiii_search.cli.views.tables import Column, FittedTable
from miiii_search.experiment.metrics import format_accuracy, mean_accuracy
from miiii_search.experiment.text import SHORT_NAMES, format_params, format_value

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from miiii_search.study.replicates import SeedStats
    from miiii_search.study.study import Study


def ranking(study: Study, rows: int = 20) -> RenderableType:
    """Return a table of the ended trials of a study, best first, with at most `rows` rows."""
    from miiii_search.study.best_trials import read_best_trials
    from miiii_search.study.finished_trials import read_varied_parameters

    n_ended = sum(n for state, n in study.counts().items() if state.is_finished())
    trials = read_best_trials(study, rows)
    # Only hyperparameters that differ between trials are worth a column.
    varied = read_varied_parameters(study)
    metrics = [trial.user_attrs.get("metrics") for trial in trials]
    validation = [format_accuracy(m["validation_accuracy_mean"]) if m else "" for m in metrics]
    test = [_test_accuracy(study, trial) for trial in trials]
    columns = [
        Column("", [str(rank) for rank in range(1, len(trials) + 1)]),
        Column("trial", [str(trial.number) for trial in trials]),
        Column("state", [_state_or_solved(trial) for trial in trials], align_left=True),
        Column("validation", validation),
        Column("test", test, drop_order=2),
        Column("solved at", [_solved_epoch(trial) for trial in trials]),
        Column("epochs", [f"{trial.user_attrs.get('epochs_trained', 0):,}" for trial in trials], drop_order=4),
        Column("time", [format_duration(trial.user_attrs.get("seconds", 0)) for trial in trials], drop_order=3),
    ]
    separate = [
        Column(SHORT_NAMES.get(name, name), [format_value(trial.params.get(name, "")) for trial in trials])
        for name in varied
    ]
    chosen = [{name: trial.params[name] for name in varied if name in trial.params} for trial in trials]
    params = [format_params(one, SHORT_NAMES) for one in chosen]
    combined = [Column("parameters", params, align_left=True, shrink_to=14, fold=True)] if varied else []
    title = Text(f"Study {study.name}: {n_ended} trials, best first", "bold", overflow="fold")
    more = [Text(f"… and {n_ended - rows} more", "dim")] if n_ended > rows else []
    table = FittedTable([*columns, *separate], [*columns, *combined], header_line=True)
    return Group(title, Text(), table, *more)


def _test_accuracy(study: Study, trial: FrozenTrial) -> str:
    """Return the mean test accuracy over the scored tasks; an empty text if the trial has no metrics."""
    metrics = trial.user_attrs.get("metrics")
    if not metrics:
        return ""
    experiment, _ = study.trial_settings(trial)
    return format_accuracy(mean_accuracy(experiment, metrics["test_accuracy"]))


def leaders_table(trials: Sequence[FrozenTrial]) -> FittedTable:
    """Return a table of the best ended trials, each with its validation accuracy by epoch as a sparkline."""
    curves = [[t.intermediate_values[epoch] for epoch in sorted(t.intermediate_values)] for t in trials]
    styles = [STATE_STYLES[t.state.name.lower()] for t in trials]
    sparklines = [Text(sparkline(curve), style) for curve, style in zip(curves, styles, strict=True)]
    return FittedTable(
        [
            Column("best", [str(t.number) for t in trials]),
            Column("state", [_state_or_solved(t) for t in trials], align_left=True),
            Column("solved at", [_solved_epoch(t) for t in trials]),
            Column("accuracy", [format_accuracy(curve[-1]) if curve else "" for curve in curves]),
            Column("by epoch", sparklines, align_left=True, drop_order=2),
            Column("epochs", [f"{t.user_attrs.get('epochs_trained', 0):,}" for t in trials], drop_order=1),
            Column("parameters", [format_params(t.params, SHORT_NAMES) for t in trials], align_left=True, shrink_to=14),
        ]
    )


def seed_stats_table(stats: Sequence[SeedStats], rows: int = 5) -> FittedTable:
    """Return a table of the configurations with the best median over their seeds, with at most `rows` rows."""
    shown = stats[:rows]
    numbers = [", ".join(str(number) for number in sorted(trial.number for trial in s.trials)) for s in shown]
    params = [format_params(s.params, SHORT_NAMES) for s in shown]
    return FittedTable(
        [
            Column("solved", [f"{s.solved}/{s.seeds}" for s in shown]),
            Column("median", [f"{s.median:,}" if s.median else "" for s in shown]),
            Column("worst", [f"{s.worst:,}" if s.worst else "" for s in shown]),
            Column("ended", [str(len(s.trials)) for s in shown], drop_order=1),
            Column("trials", numbers, shrink_to=6, drop_order=2),
            Column("configuration by the median of its seeds", params, align_left=True, shrink_to=14),
        ]
    )


def _state_or_solved(trial: FrozenTrial) -> Text:
    """Return the state of a trial, or "solved" if it solved all tasks, in the color of its state."""
    state = trial.state.name.lower()
    return Text("solved" if trial.user_attrs.get("epochs_to_solve") else state, STATE_STYLES[state])


def _solved_epoch(trial: FrozenTrial) -> str:
    """Return the epoch at which a trial solved all tasks; nothing if it did not."""
    solved = trial.user_attrs.get("epochs_to_solve")
    return f"{solved:,}" if solved else ""
