"""Figure of the share of solved trials at each value of each hyperparameter."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_style import display_name
from miiii_search.analysis.study_summary import SearchDimension, StudySummary

PANELS_PER_ROW = 3

MAX_LETTERS = 24
"""Total length of a panel's tick labels up to which they stay horizontal."""


def solved_share_bars(summary: StudySummary) -> Figure | None:
    """Draw the share of trials solved at each level of every dimension, one panel per dimension.

    Returns None before a trial has ended, or if no dimension has several levels.
    """
    varied = summary.dimensions_by_importance()
    if not varied or not any(trial.has_ended for trial in summary.trials):
        return None
    columns = min(len(varied), PANELS_PER_ROW)
    rows = -(-len(varied) // columns)
    figure = style.new_figure(style.PAGE_WIDTH, 0.4 + 1.45 * rows)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes, dimension in zip(panels, varied, strict=False):
        _draw_panel(axes, summary, dimension)
    for axes in panels[len(varied) :]:
        axes.set_axis_off()
    figure.supylabel("trials solved (%)", fontsize=8)
    return figure


def _draw_panel(axes: Axes, summary: StudySummary, dimension: SearchDimension) -> None:
    marginals = summary.marginals[dimension.name]
    positions = range(len(marginals))
    heights = [100 * (marginal.solved_share or 0.0) for marginal in marginals]
    axes.bar(positions, heights, color=style.OKABE_ITO[0], width=0.7)
    for position, height, marginal in zip(positions, heights, marginals, strict=True):
        axes.text(position, height + 2, f"{marginal.solved}/{marginal.ended}", ha="center", fontsize=6)
    labels = [marginal.level for marginal in marginals]
    axes.set(xticks=positions, xticklabels=labels, xlabel=display_name(dimension.name), ylim=(0, 112))
    axes.set_yticks([0, 50, 100])
    if len("".join(labels)) > MAX_LETTERS:
        axes.tick_params(axis="x", rotation=30)
