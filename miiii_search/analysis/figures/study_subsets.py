"""Epochs to generalise of each task, alone and together with others, in a study over subsets of the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style
from miiii_search.analysis.study_summary import StudySummary
from miiii_search.analysis.subset_runs import SubsetRun, median_epochs

GROUPS = ("alone", "some together", "all together")
"""Sizes of the subsets, in the order in which they stand side by side."""

STEP = 0.22
"""Distance between two groups of a task, in units of the distance between two tasks."""


def epochs_to_generalise_by_subset(summary: StudySummary) -> Figure | None:
    """Draw when each task generalised, by how many tasks it was trained with.

    Returns None if the study is not over subsets, or if no run has ended.
    """
    runs = summary.subset_runs
    moduli = sorted({q for run in runs for q in run.generalised})
    if not moduli:
        return None
    figure = style.new_figure(style.PAGE_WIDTH, 2.6)
    axes = figure.subplots()
    last = summary.epochs * 1.15
    for group, name in enumerate(GROUPS):
        members = [run for run in runs if group_of(run) == name]
        if members:
            _draw_group(axes, members, moduli, group, last)
    axes.axhline(summary.epochs, color="0.8", linewidth=0.8, zorder=0)
    axes.set(yscale="log", ylabel="epochs to generalise", xlabel="task q", xlim=(-0.6, len(moduli) - 0.4))
    axes.set_xticks(range(len(moduli)), [str(q) for q in moduli], fontsize=6)
    figure.legend(loc="outside upper right", ncols=len(GROUPS))
    return figure


def group_of(run: SubsetRun) -> str:
    """Return which of `GROUPS` a run belongs to."""
    if run.tasks_together == 1:
        return GROUPS[0]
    return GROUPS[2] if run.tasks_together == run.of_tasks else GROUPS[1]


def _draw_group(axes: Axes, runs: Sequence[SubsetRun], moduli: Sequence[int], group: int, last: float) -> None:
    """Draw one dot for each run, a cross for each in which the task did not generalise, and a bar at the median."""
    colour = style.OKABE_ITO[group]
    points = [
        (index + STEP * (group - 1), run.generalised[q])
        for index, q in enumerate(moduli)
        for run in runs
        if q in run.generalised
    ]
    dots: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linestyle": "none", "alpha": 0.7}
    reached = [(x, epoch) for x, epoch in points if epoch is not None]
    axes.plot([x for x, _ in reached], [epoch for _, epoch in reached], color=colour, label=GROUPS[group], **dots)
    missed = [x for x, epoch in points if epoch is None]
    axes.plot(missed, [last] * len(missed), color=colour, marker="x", markersize=3.5, linestyle="none")
    medians = [(index, median) for index, q in enumerate(moduli) if (median := median_epochs(runs, q)) is not None]
    axes.plot(
        [index + STEP * (group - 1) for index, _ in medians],
        [median for _, median in medians],
        color=colour,
        marker="_",
        markersize=8,
        linestyle="none",
    )
