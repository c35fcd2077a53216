"""Figures of training other than its learning curves: the order of the tasks and gradient norms (Fig. 18)."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from miiii_search.analysis.figures.curves import TRAINING_COLOUR, VALIDATION_COLOUR
from miiii_search.analysis.figures.heatmaps import draw_over_epochs
from miiii_search.analysis.figures.style import COLUMN_WIDTH, new_figure, set_log_epoch_axis
from miiii_search.analysis.figures.task_rows import LABELLED_ROW_HEIGHT, MIN_HEIGHT, label_task_rows
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.milestones import LEARNED_ACCURACY

MATRIX_LABELS = {
    "token_embedding": "tokens",
    "position_embedding": "positions",
    "query": "query",
    "key": "key",
    "value": "value",
    "attention_output": "attention out",
    "feed_forward_in": "feed-forward in",
    "feed_forward_out": "feed-forward out",
    "unembedding": "unembedding",
}
"""Labels of the weight matrices, in the order in which the network uses them."""


def task_order(findings: Findings) -> Figure | None:
    """Draw when each task was memorised and when it generalised, sorted by the latter (section 4.2)."""
    milestones, record, experiment = findings.milestones, findings.run.record, findings.run.experiment
    if milestones is None or record is None:
        return None
    memorised, generalised = milestones.memorised, milestones.generalised
    if not any(epoch is not None for epoch in [*memorised.values(), *generalised.values()]):
        return None
    rows = [*milestones.order, *(q for q in experiment.task_moduli if generalised[q] is None)]
    figure = new_figure(COLUMN_WIDTH, max(MIN_HEIGHT, LABELLED_ROW_HEIGHT * len(rows)) + 0.75)
    axes = figure.subplots()
    for row, q in enumerate(rows):
        start, end = memorised[q], generalised[q]
        if start is not None:
            stroke = "-" if end is not None else ":"
            axes.plot([start, end or int(record.epoch[-1])], [row, row], stroke, color="0.6", linewidth=0.8, zorder=1)
            axes.plot(start, row, "o", color=TRAINING_COLOUR, markerfacecolor="white", markersize=3.5)
        if end is not None:
            axes.plot(end, row, "o", color=VALIDATION_COLOUR, markersize=3.5)
    set_log_epoch_axis(axes)
    axes.set_xlim(record.epoch[0] / 1.1, record.epoch[-1] * 1.1)
    label_task_rows(axes, experiment, rows, LABELLED_ROW_HEIGHT)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.25)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=TRAINING_COLOUR, markerfacecolor="white", markersize=3.5),
        Line2D([], [], marker="o", linestyle="", color=VALIDATION_COLOUR, markersize=3.5),
    ]
    labels = [f"training at {LEARNED_ACCURACY:.0%}", f"validation at {LEARNED_ACCURACY:.0%}"]
    if len(milestones.order) < len(rows):
        handles.append(Line2D([], [], linestyle=":", color="0.6", linewidth=0.8))
        labels.append("not by the end")
    figure.legend(handles, labels, loc="outside upper center", ncols=3, columnspacing=1, handletextpad=0.4)
    return figure


def gradient_norms(findings: Findings) -> Figure | None:
    """Draw the L2 norm of every matrix's gradient, in the order in which the network uses the matrices (Fig. 18)."""
    record = findings.run.record
    if record is None or not len(record):
        return None
    columns = {name: column for column, name in enumerate(sorted(MATRIX_LABELS))}
    norms = record.gradient_norm[:, [columns[name] for name in MATRIX_LABELS]]
    drawable = norms[np.isfinite(norms) & (norms > 0)]
    if not len(drawable):
        return None
    figure = new_figure(COLUMN_WIDTH, 2.1)
    axes = figure.subplots()
    norm = LogNorm(float(drawable.min()), max(float(drawable.max()), 1.01 * float(drawable.min())))
    image = draw_over_epochs(axes, record.epoch, norms, norm)
    axes.set_yticks(range(len(MATRIX_LABELS)), list(MATRIX_LABELS.values()))
    axes.invert_yaxis()
    figure.colorbar(image, ax=axes, location="top", label="L2 norm of the gradient", aspect=30)
    return figure
