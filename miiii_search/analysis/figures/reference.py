"""Comparison of runs with a reference's curves: mean accuracies, and when each task generalises (Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from miiii_search.analysis.figures.style import OKABE_ITO, PAGE_WIDTH, new_figure, set_log_epoch_axis
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.reference import ReferenceCurves, differences_from_reference, last_crossing_epochs
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.record import Record

LASTING_ACCURACY = 0.9
"""Accuracy at which a task counts as generalised in the lower panel. Curves read off a figure show no finer level."""

REFERENCE_COLOUR = "0.35"

Recorded = Sequence[tuple[TrainedRun, Record]]


def compare_with_reference(findings: Sequence[Findings], reference: ReferenceCurves) -> Figure | None:
    """Draw mean accuracies of runs and reference over the epoch, and the epoch at which each task generalises.

    Returns None if no run has a record.
    """
    runs = [(found.run, found.run.record) for found in findings if found.run.record is not None]
    if not runs:
        return None
    figure = new_figure(PAGE_WIDTH, 6.0)
    upper, lower = figure.subplots(2, 1, height_ratios=[1.2, 1])
    _draw_accuracies(upper, runs, reference)
    _draw_crossings(lower, runs, reference)
    return figure


def _draw_accuracies(axes: Axes, runs: Recorded, reference: ReferenceCurves) -> None:
    for split, line in (("training", ":"), ("validation", "-")):
        mean = reference.accuracy[split].mean(axis=1)
        axes.plot(reference.epochs, mean, line, color=REFERENCE_COLOUR, linewidth=2.2, alpha=0.7)
        for (run, record), colour in zip(runs, cycle(OKABE_ITO), strict=False):
            compared = differences_from_reference(run.experiment, record, reference)
            axes.plot(compared.epochs, compared.run[split], line, color=colour)
    axes.set(ylabel="accuracy, mean over tasks", ylim=(0, 1.03))
    set_log_epoch_axis(axes)
    axes.grid(alpha=0.25)
    handles = [Line2D([], [], color=REFERENCE_COLOUR)]
    handles += [Line2D([], [], color=colour) for _, colour in zip(runs, cycle(OKABE_ITO), strict=False)]
    handles += [Line2D([], [], color="black", linestyle=line) for line in (":", "-")]
    labels = [reference.name, *(run.name for run, _ in runs), "training", "validation"]
    axes.legend(handles, labels, loc="upper left")


def _draw_crossings(axes: Axes, runs: Recorded, reference: ReferenceCurves) -> None:
    """Draw the epoch from which each task's validation accuracy stays at `LASTING_ACCURACY`."""
    rows = np.arange(len(reference.moduli))
    theirs = last_crossing_epochs(reference.epochs, reference.accuracy["validation"], LASTING_ACCURACY)
    axes.plot(*_known(theirs, rows), "o", color=REFERENCE_COLOUR, markersize=4)
    for (run, record), colour in zip(runs, cycle(OKABE_ITO), strict=False):
        accuracy = record.validation_accuracy.astype(np.float64)
        ours = last_crossing_epochs(record.epoch.astype(np.int64), accuracy, LASTING_ACCURACY)
        by_modulus = dict(zip(run.experiment.task_moduli, ours, strict=True))
        axes.plot(*_known([by_modulus.get(q) for q in reference.moduli], rows), "x", color=colour, markersize=4)
    axes.set_xticks(rows, [str(q) for q in reference.moduli], fontsize=6)
    axes.set(xlabel="task q", ylabel=f"epoch from which validation\naccuracy stays at {LASTING_ACCURACY}")
    if any(np.size(line.get_ydata()) for line in axes.lines):  # a logarithmic axis needs a point
        axes.set_yscale("log")
    axes.grid(alpha=0.25)


def _known(epochs: Sequence[int | None], rows: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Return the rows and epochs of the tasks that generalised."""
    known = [(int(row), epoch) for row, epoch in zip(rows, epochs, strict=True) if epoch is not None]
    return [row for row, _ in known], [epoch for _, epoch in known]
