"""Runs beside a reference's curves (Fig. 6): mean accuracies, and when each task generalises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from miiii_search.analysis.figures.style import OKABE_ITO, PAGE_WIDTH, new_figure, set_log_epoch_axis
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.reference import ReferenceCurves, differences_from_reference, last_crossing_epochs

STAYS = 0.9
"""Accuracy at which a task counts as generalised in the lower panel: what a figure's ink can tell."""


def compare_with_reference(findings: Sequence[Findings], reference: ReferenceCurves) -> Figure | None:
    """Draw mean accuracies of runs and reference against the epoch, and the epoch at which each task generalises."""
    runs = [(found.run, found.run.record) for found in findings if found.run.record is not None]
    if not runs:
        return None
    figure = new_figure(PAGE_WIDTH, 6.0)
    upper, lower = figure.subplots(2, 1, height_ratios=[1.2, 1])
    reference_colour = "0.35"
    for split, style in (("training", ":"), ("validation", "-")):
        mean = reference.accuracy[split].mean(axis=1)
        upper.plot(reference.epochs, mean, style, color=reference_colour, linewidth=2.2, alpha=0.7)
        for (run, record), colour in zip(runs, OKABE_ITO * len(runs), strict=False):
            compared = differences_from_reference(run.experiment, record, reference)
            upper.plot(compared.epochs, compared.run[split], style, color=colour)
    upper.set(ylabel="accuracy, mean over tasks", ylim=(0, 1.03))
    set_log_epoch_axis(upper)
    upper.grid(alpha=0.25)
    names = [reference.name, *(run.name for run, _ in runs)]
    colours = [reference_colour, *OKABE_ITO * len(runs)]
    handles = [Line2D([], [], color=colour) for _, colour in zip(names, colours, strict=False)]
    handles += [Line2D([], [], color="black", linestyle=style) for style in (":", "-")]
    upper.legend(handles, [*names, "training", "validation"], loc="upper left")
    rows = np.arange(len(reference.moduli))
    theirs = last_crossing_epochs(reference.epochs, reference.accuracy["validation"], STAYS)
    lower.plot(*_points(theirs, rows), "o", color=reference_colour, markersize=4)
    for (run, record), colour in zip(runs, OKABE_ITO * len(runs), strict=False):
        ours = last_crossing_epochs(record.epoch.astype(np.int64), record.validation_accuracy.astype(np.float64), STAYS)
        by_modulus = dict(zip(run.experiment.moduli, ours, strict=True))
        lower.plot(*_points([by_modulus.get(q) for q in reference.moduli], rows), "x", color=colour, markersize=4)
    lower.set_xticks(rows, [str(q) for q in reference.moduli], fontsize=6)
    lower.set(xlabel="task q", ylabel=f"epoch from which validation\naccuracy stays at {STAYS}")
    if any(len(line.get_ydata()) for line in lower.lines):  # a logarithmic axis needs a point
        lower.set_yscale("log")
    lower.grid(alpha=0.25)
    return figure


def _points(epochs: Sequence[int | None], rows: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The tasks that generalised, and when."""
    known = [(int(row), epoch) for row, epoch in zip(rows, epochs, strict=True) if epoch is not None]
    return [row for row, _ in known], [epoch for _, epoch in known]
