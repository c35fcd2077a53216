"""Figures of replayed studies: epochs saved against grokkers lost, and the learning curves of pruned runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from miiii_search.analysis.figures.style import OKABE_ITO, PAGE_WIDTH, escape_text, new_figure
from miiii_search.config.study_sections import PRUNING_RULES, rule_title
from miiii_search.pruners.history import history_of
from miiii_search.simulation.pruner_variants import PrunerVariant
from miiii_search.simulation.replay import ReplayedRun
from miiii_search.simulation.scoring import Summary

MARKERS = dict(zip(map(rule_title, PRUNING_RULES), "x*so^vDPX", strict=True))
"""Markers by the name of the pruner."""
OWN_COLOR, OPTUNA_COLOR = OKABE_ITO[0], OKABE_ITO[1]
GREY = "0.45"
OUTCOME_COLORS = {"solved": OKABE_ITO[2], "unsolved": OKABE_ITO[0], "pruned": OKABE_ITO[1], "failed": "black"}

ScoredVariants = Sequence[tuple[PrunerVariant, Summary]]


def draw_pruners(panels: Mapping[str, ScoredVariants]) -> Figure:
    """Draw one panel per set of curves: the epochs that each pruner saves, and the share of grokkers that it loses.

    Hollow markers are Optuna's pruners with default arguments, full ones are tuned. Error bars hold 90 % of the
    replays. The settings of one of our pruners are connected by a line.

    Args:
        panels: The pruners and their scores, by the title of the panel.
    """
    n = len(panels)
    rows = math.ceil(n / 2) if n > 1 else 1
    figure = new_figure(PAGE_WIDTH if n > 1 else PAGE_WIDTH * 0.7, 2.6 * rows + 0.5)
    axes = figure.subplots(rows, 2 if n > 1 else 1, squeeze=False, sharex=True, sharey=True)
    for panel, (title, scored) in zip(axes.flat, panels.items(), strict=False):
        _draw_panel(panel, title, scored)
    for panel in list(axes.flat)[n:]:
        panel.set_visible(False)
    for panel in list(axes.flat)[max(n - 2, 0) : n]:
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("epochs saved")
    for row in axes:
        row[0].set_ylabel("grokkers lost")
    figure.legend(handles=_legend(panels), loc="outside lower center", ncols=5, columnspacing=1.2)
    return figure


def _draw_panel(axes: Axes, title: str, scored: ScoredVariants) -> None:
    axes.axhspan(-0.04, 0.02, color=OKABE_ITO[2], alpha=0.12, linewidth=0)
    lines: dict[str, list[tuple[float, float]]] = {}
    for variant, summary in scored:
        mean, low, high = summary.mean, summary.low, summary.high
        if math.isnan(mean.grokkers_lost):
            continue
        x, y = 1 - mean.epochs_share, mean.grokkers_lost
        color = _color(variant)
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
            MARKERS.get(variant.pruner, "h"),
            color=color,
            markerfacecolor="white" if variant.make_default else color,
            markersize=11 if variant.pruner == "forecast" and not variant.label else 5,
            zorder=3 if variant.is_from_optuna else 4,
            clip_on=False,
        )
        if not variant.is_from_optuna:
            lines.setdefault(variant.pruner, []).append((x, y))
    for points in lines.values():
        axes.plot(*zip(*sorted(points), strict=True), color=OWN_COLOR, linewidth=0.8, alpha=0.6)
    axes.set(title=escape_text(title), xlim=(0, 1), ylim=(-0.04, 1.04))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25, linewidth=0.5)


def _color(variant: PrunerVariant) -> str:
    if variant.pruner == "none":
        return GREY
    return OPTUNA_COLOR if variant.is_from_optuna else OWN_COLOR


def _legend(panels: Mapping[str, ScoredVariants]) -> list[Line2D]:
    handles: dict[str, Line2D] = {}
    for variant in (variant for scored in panels.values() for variant, _ in scored):
        handle = Line2D(
            [],
            [],
            color=_color(variant),
            marker=MARKERS.get(variant.pruner, "h"),
            linestyle="",
            markersize=8 if variant.pruner == "forecast" else 5,
            label=variant.pruner,
        )
        handles.setdefault(variant.pruner, handle)
    return list(handles.values())


def draw_curves(panels: Mapping[str, Sequence[ReplayedRun]]) -> Figure:
    """Draw one panel per replayed study: the validation loss of every run, divided by that of guessing, by outcome.

    A cross marks where a run was pruned, and a faint line the rest of its recorded curve. The dashes of a solved run
    are its epochs after it was solved.

    Args:
        panels: The runs of each study, by the title of the panel.
    """
    n = len(panels)
    rows = math.ceil(n / 2) if n > 1 else 1
    figure = new_figure(PAGE_WIDTH, 2.5 * rows + 0.4)
    axes = figure.subplots(rows, 2 if n > 1 else 1, squeeze=False)
    for panel, (title, runs) in zip(axes.flat, panels.items(), strict=False):
        for run in runs:
            _draw_run(panel, run)
        lowest = min((run.curve.record.validation_loss.min() for run in runs), default=0.0)
        panel.set(title=escape_text(title), yscale="log", ylim=(max(3e-3, 0.2 * lowest), None), xlabel="epoch")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:,.0f}"))
    for panel in list(axes.flat)[n:]:
        panel.set_visible(False)
    for row in axes:
        row[0].set_ylabel("validation loss / guessing")
    present = {run.outcome for runs in panels.values() for run in runs}
    handles = [Line2D([], [], color=color, label=name) for name, color in OUTCOME_COLORS.items() if name in present]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _draw_run(axes: Axes, run: ReplayedRun) -> None:
    history = history_of(run.curve.experiment, run.curve.record)
    color, style = OUTCOME_COLORS[run.outcome], "--" if run.outcome == "solved" else "-"
    loss, trained = history.validation_loss.mean(axis=1), history.epoch <= run.epochs
    axes.plot(history.epoch, loss, style, color=color, alpha=0.25, linewidth=0.6)
    axes.plot(history.epoch[trained], loss[trained], color=color, linewidth=0.9)
    if run.outcome == "pruned":
        axes.plot(run.epochs, loss[trained][-1], "x", color=color, markersize=4)
