"""Training: accuracy and loss of every task, the order of the tasks, gradients (Fig. 6, 7, 18, 20, 23)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from miiii_search.analysis.figures.heatmaps import draw_over_epochs
from miiii_search.analysis.figures.style import COLUMN_WIDTH, OKABE_ITO, SEQUENTIAL, new_figure, set_log_epoch_axis
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.milestones import LEARNED_ACCURACY
from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment

TRAINING, VALIDATION = OKABE_ITO[1], OKABE_ITO[0]

ROW = 0.06
"""Inches a task of a heat map: 29 tasks, twice, in half a page's height."""

LABELLED_ROW = 0.1
"""Inches that a row needs for a label of its own."""

LEAST_HEIGHT = 0.8
"""Inches of a heat map, or its axis would have no room for its name."""

FEW_ROWS = 1.5
"""Inches that a heat map may take so that each of its rows has a label."""

LEAST_LOSS = 1e-4
"""In nats. What is below is drawn as this: how far training has memorised would take all of the colours."""

DEPTH = {
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
"""The matrices in the order in which the network uses them, with their names in figures."""


def accuracy(findings: Findings) -> Figure | None:
    """Accuracy of every task, training above validation (Fig. 6, 20, 23); of a single task as two lines."""
    record, experiment = findings.run.record, findings.run.experiment
    if record is None or not len(record):
        return None
    if len(experiment.moduli) == 1:
        figure, axes = _lines(record.epoch, record.train_accuracy, record.validation_accuracy)
        axes.axhline(1 / experiment.moduli[0], color="grey", linestyle="--", linewidth=0.8, label="chance")
        axes.set(ylabel="accuracy", ylim=(-0.03, 1.03))
        axes.legend(loc="best")
        return figure
    return _heat_maps(
        experiment, record, record.train_accuracy, record.validation_accuracy, Normalize(0, 1), SEQUENTIAL, "accuracy"
    )


def loss(findings: Findings) -> Figure | None:
    """Cross-entropy of every task, training above validation (Fig. 7); of a single task as two lines."""
    record, experiment = findings.run.record, findings.run.experiment
    if record is None or not len(record):
        return None
    losses = np.concatenate([record.train_loss, record.validation_loss])
    drawable = losses[np.isfinite(losses) & (losses > 0)]
    if not len(drawable):
        return None
    if len(experiment.moduli) == 1:
        figure, axes = _lines(record.epoch, record.train_loss, record.validation_loss)
        axes.axhline(np.log(experiment.moduli[0]), color="grey", linestyle="--", linewidth=0.8, label="chance")
        axes.set(ylabel="cross-entropy (nats)", yscale="log")
        axes.legend(loc="best")
        return figure
    least = max(LEAST_LOSS, float(drawable.min()))
    norm = LogNorm(least, max(float(drawable.max()), 1.01 * least))
    # Reversed, so that in both heat maps what is bright is learned.
    cmap = f"{SEQUENTIAL}_r"
    train, validation = (np.maximum(of, least) for of in (record.train_loss, record.validation_loss))
    extend = "min" if drawable.min() < least else "neither"
    return _heat_maps(experiment, record, train, validation, norm, cmap, "cross-entropy (nats)", extend)


def task_order(findings: Findings) -> Figure | None:
    """When each task was memorised and when it generalised, first ones first (4.2)."""
    milestones, record, experiment = findings.milestones, findings.run.record, findings.run.experiment
    if milestones is None or record is None:
        return None
    memorised, generalised = milestones.memorised, milestones.generalised
    if not any(epoch is not None for epoch in [*memorised.values(), *generalised.values()]):
        return None
    rows = [*milestones.order, *(q for q in experiment.moduli if generalised[q] is None)]
    figure = new_figure(COLUMN_WIDTH, max(LEAST_HEIGHT, LABELLED_ROW * len(rows)) + 0.75)
    axes = figure.subplots()
    for row, q in enumerate(rows):
        begin, end = memorised[q], generalised[q]
        if begin is not None:
            stroke = "-" if end is not None else ":"
            axes.plot([begin, end or int(record.epoch[-1])], [row, row], stroke, color="0.6", linewidth=0.8, zorder=1)
            axes.plot(begin, row, "o", color=TRAINING, markerfacecolor="white", markersize=3.5)
        if end is not None:
            axes.plot(end, row, "o", color=VALIDATION, markersize=3.5)
    set_log_epoch_axis(axes)
    axes.set_xlim(record.epoch[0] / 1.1, record.epoch[-1] * 1.1)
    _name_rows(axes, experiment, rows, LABELLED_ROW)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.25)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=TRAINING, markerfacecolor="white", markersize=3.5),
        Line2D([], [], marker="o", linestyle="", color=VALIDATION, markersize=3.5),
    ]
    names = [f"training at {LEARNED_ACCURACY:.0%}", f"validation at {LEARNED_ACCURACY:.0%}"]
    if len(milestones.order) < len(rows):
        handles.append(Line2D([], [], linestyle=":", color="0.6", linewidth=0.8))
        names.append("not by the end")
    figure.legend(handles, names, loc="outside upper center", ncols=3, columnspacing=1, handletextpad=0.4)
    return figure


def gradient_norms(findings: Findings) -> Figure | None:
    """The L2 norm of every matrix's gradient, in the order in which the network uses them (Fig. 18)."""
    record = findings.run.record
    if record is None or not len(record):
        return None
    by_name = {name: column for column, name in enumerate(sorted(DEPTH))}
    norms = record.gradient_norm[:, [by_name[name] for name in DEPTH]]
    drawable = norms[np.isfinite(norms) & (norms > 0)]
    if not len(drawable):
        return None
    figure = new_figure(COLUMN_WIDTH, 2.1)
    axes = figure.subplots()
    norm = LogNorm(float(drawable.min()), max(float(drawable.max()), 1.01 * float(drawable.min())))
    image = draw_over_epochs(axes, record.epoch, norms, norm)
    axes.set_yticks(range(len(DEPTH)), list(DEPTH.values()))
    axes.invert_yaxis()
    figure.colorbar(image, ax=axes, location="top", label="L2 norm of the gradient", aspect=30)
    return figure


def _lines(epochs: NDArray[np.int32], train: Floats, validation: Floats) -> tuple[Figure, Axes]:
    figure = new_figure(COLUMN_WIDTH, 2.0)
    axes = figure.subplots()
    axes.plot(epochs, train[:, 0], ":", color=TRAINING, label="training")
    axes.plot(epochs, validation[:, 0], color=VALIDATION, label="validation")
    set_log_epoch_axis(axes)
    return figure, axes


def _heat_maps(
    experiment: Experiment,
    record: Record,
    train: Floats,
    validation: Floats,
    norm: Normalize,
    cmap: str,
    name: str,
    extend: str = "neither",
) -> Figure:
    tasks = len(experiment.moduli)
    height = max(LEAST_HEIGHT, ROW * tasks, min(LABELLED_ROW * tasks, FEW_ROWS))
    figure = new_figure(COLUMN_WIDTH, 2 * height + 1.2)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, values, title in zip(panels, (train, validation), ("training", "validation"), strict=True):
        image = draw_over_epochs(axes, record.epoch, values, norm, cmap=cmap)
        _name_rows(axes, experiment, experiment.moduli, height / tasks)
        axes.invert_yaxis()
        axes.set_title(title)
        axes.label_outer()
    figure.colorbar(image, ax=panels, location="top", label=name, extend=extend, aspect=40)
    return figure


def _name_rows(axes: Axes, experiment: Experiment, moduli: tuple[int, ...] | list[int], height: float) -> None:
    """Labels as many rows of so many inches as can be read; grey are tasks that the loss leaves out."""
    every = int(np.ceil(LABELLED_ROW / height - 1e-9))
    shown = range(0, len(moduli), every)
    axes.set_yticks(list(shown), [str(moduli[row]) for row in shown], fontsize=6)
    axes.tick_params(axis="y", length=2)
    scored = dict(zip(experiment.moduli, experiment.scored, strict=True))
    for row, label in zip(shown, axes.get_yticklabels(), strict=True):
        label.set_color("black" if scored[moduli[row]] else "0.55")
    axes.set_ylabel("task q" if all(experiment.scored) else "task q\n(grey: masked)")
