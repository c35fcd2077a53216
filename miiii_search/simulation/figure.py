"""The picture of rules: epochs saved against grokkers lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from miiii_search.analysis.figures.style import OKABE_ITO, PAGE_WIDTH, escape_text, new_figure
from miiii_search.pruners.history import history_of
from miiii_search.simulation.pruner_variants import PrunerVariant
from miiii_search.simulation.replay import ReplayedRun
from miiii_search.simulation.scoring import Summary

MARKERS = {
    "none": "x",
    "quantile": "s",
    "forecast": "*",
    "median": "o",
    "percentile": "^",
    "successive halving": "v",
    "hyperband": "D",
    "patient": "P",
    "threshold": "X",
}
OURS, OPTUNAS = OKABE_ITO[0], OKABE_ITO[1]
GREY = "0.45"

Compared = Sequence[tuple[PrunerVariant, Summary]]


def draw_pruners(panels: Mapping[str, Compared]) -> Figure:
    """One panel a set of curves: to the right what a rule saves, upwards the grokkers that it loses.

    Hollow marks are Optuna's pruners as they come, full ones tuned; lines hold nine of ten replays. Several settings
    of one rule of ours are joined.
    """
    n = len(panels)
    rows = math.ceil(n / 2) if n > 1 else 1
    figure = new_figure(PAGE_WIDTH if n > 1 else PAGE_WIDTH * 0.7, 2.6 * rows + 0.5)
    axes = figure.subplots(rows, 2 if n > 1 else 1, squeeze=False, sharex=True, sharey=True)
    for one, (title, compared) in zip(axes.flat, panels.items(), strict=False):
        _draw_panel(one, title, compared)
    for one in list(axes.flat)[n:]:
        one.set_visible(False)
    for one in list(axes.flat)[max(n - 2, 0) : n]:
        one.tick_params(labelbottom=True)
        one.set_xlabel("epochs saved")
    for row in axes:
        row[0].set_ylabel("grokkers lost")
    figure.legend(handles=_legend(panels), loc="outside lower center", ncols=5, columnspacing=1.2)
    return figure


def _draw_panel(axes: Axes, title: str, compared: Compared) -> None:
    axes.axhspan(-0.04, 0.02, color=OKABE_ITO[2], alpha=0.12, linewidth=0)
    lines: dict[str, list[tuple[float, float]]] = {}
    for contender, summary in compared:
        rule = contender.rule
        mean, low, high = summary.mean, summary.low, summary.high
        if math.isnan(mean.grokkers_lost):
            continue
        x, y = 1 - mean.epochs_share, mean.grokkers_lost
        color = _color(contender)
        axes.errorbar(
            x,
            y,
            xerr=[[max(x - 1 + high.epochs_share, 0)], [max(1 - low.epochs_share - x, 0)]],
            yerr=[[max(y - low.grokkers_lost, 0)], [max(high.grokkers_lost - y, 0)]],
            fmt="none",
            ecolor=color,
            elinewidth=0.5,
            alpha=0.5,
        )
        axes.plot(
            x,
            y,
            MARKERS.get(rule, "h"),
            color=color,
            markerfacecolor="white" if contender.stock else color,
            markersize=11 if rule == "forecast" and not contender.setting else 5,
            zorder=4 if not contender.is_optunas else 3,
            clip_on=False,
        )
        if not contender.is_optunas:
            lines.setdefault(rule, []).append((x, y))
    for points in lines.values():
        axes.plot(*zip(*sorted(points), strict=True), color=OURS, linewidth=0.8, alpha=0.6)
    axes.set(title=escape_text(title), xlim=(0, 1), ylim=(-0.04, 1.04))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25, linewidth=0.5)


def _color(contender: PrunerVariant) -> str:
    if contender.rule == "none":
        return GREY
    return OURS if not contender.is_optunas else OPTUNAS


def _legend(panels: Mapping[str, Compared]) -> list[Line2D]:
    seen: dict[str, Line2D] = {}
    for compared in panels.values():
        for contender, _ in compared:
            rule = contender.rule
            seen.setdefault(
                rule,
                Line2D(
                    [],
                    [],
                    color=_color(contender),
                    marker=MARKERS.get(rule, "h"),
                    linestyle="",
                    markersize=8 if rule == "forecast" else 5,
                    label=rule,
                ),
            )
    return list(seen.values())


ENDINGS = {"solved": OKABE_ITO[2], "unsolved": OKABE_ITO[0], "pruned": OKABE_ITO[1], "failed": "black"}


def draw_curves(panels: Mapping[str, Sequence[ReplayedRun]]) -> Figure:
    """One panel a replayed study: the validation loss of every run, in units of guessing, coloured by how it ended.

    Where a run was given up is a cross, and how it would have gone on is faint; a grokker's dashes are its epochs after
    it was solved.
    """
    n = len(panels)
    rows = math.ceil(n / 2) if n > 1 else 1
    figure = new_figure(PAGE_WIDTH, 2.5 * rows + 0.4)
    axes = figure.subplots(rows, 2 if n > 1 else 1, squeeze=False)
    for one, (title, runs) in zip(axes.flat, panels.items(), strict=False):
        for run in runs:
            history, color = history_of(run.curve.experiment, run.curve.record), ENDINGS[run.ending]
            loss, seen = history.validation_loss.mean(axis=1), history.epoch <= run.epochs
            one.plot(
                history.epoch, loss, "--" if run.ending == "solved" else "-", color=color, alpha=0.25, linewidth=0.6
            )
            one.plot(history.epoch[seen], loss[seen], color=color, linewidth=0.9)
            if run.ending == "pruned":
                one.plot(run.epochs, loss[seen][-1], "x", color=color, markersize=4)
        lowest = min((run.curve.record.validation_loss.min() for run in runs), default=0.0)
        one.set(title=escape_text(title), yscale="log", ylim=(max(3e-3, 0.2 * lowest), None), xlabel="epoch")
        one.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:,.0f}"))
    for one in list(axes.flat)[n:]:
        one.set_visible(False)
    for row in axes:
        row[0].set_ylabel("validation loss / guessing")
    there = [ending for ending in ENDINGS if any(run.ending == ending for runs in panels.values() for run in runs)]
    handles = [Line2D([], [], color=ENDINGS[ending], label=ending) for ending in there]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
