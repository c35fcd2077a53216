"""Learning curves of one run: accuracy and cross-entropy of every task (Fig. 6, 7, 20, 23)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from miiii_search.analysis.figures.heatmaps import draw_over_epochs
from miiii_search.analysis.figures.style import (
    COLUMN_WIDTH,
    OKABE_ITO,
    SEQUENTIAL,
    default_style,
    escape_text,
    new_figure,
    set_log_epoch_axis,
    task_colours,
)
from miiii_search.analysis.figures.task_rows import LABELLED_ROW_HEIGHT, MIN_HEIGHT, label_task_rows
from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.tasks import guessing_losses

if TYPE_CHECKING:  # a worker that draws the curves of a trial does not load the analyses
    from miiii_search.analysis.findings import Findings

TRAINING_COLOUR, VALIDATION_COLOUR = OKABE_ITO[1], OKABE_ITO[0]

ROW_HEIGHT = 0.06
"""Height of a task's row in a heat map, in inches. Two heat maps of 29 tasks then fill half a page."""

MAX_HEIGHT_FOR_LABELS = 1.5
"""Height up to which a heat map is made taller so that every row has a label, in inches."""

MIN_DRAWN_LOSS = 1e-4
"""Smallest loss drawn, in nats. Memorised tasks have much smaller training losses, which would use up all colours."""

MAX_LABELLED_CURVES = 10
"""Number of tasks up to which the legend names each curve. With more tasks there is a colour bar instead."""


@dataclass(frozen=True)
class _ColourScale:
    """Colours of a heat map and of its colour bar."""

    label: str
    norm: Normalize
    colormap: str = SEQUENTIAL
    extend: Literal["neither", "min"] = "neither"


def accuracy(findings: Findings) -> Figure | None:
    """Draw the accuracy of every task as heat maps, training above validation (Fig. 6, 20, 23).

    A run with a single task is drawn as two lines. Returns None if nothing was recorded.
    """
    record, experiment = findings.run.record, findings.run.experiment
    if record is None or not len(record):
        return None
    if len(experiment.task_moduli) == 1:
        figure, axes = _lines(record.epoch, record.train_accuracy, record.validation_accuracy)
        axes.axhline(1 / experiment.classes[0], color="grey", linestyle="--", linewidth=0.8, label="chance")
        axes.set(ylabel="accuracy", ylim=(-0.03, 1.03))
        axes.legend(loc="best")
        return figure
    scale = _ColourScale("accuracy", Normalize(0, 1))
    return _heat_maps(experiment, record.epoch, (record.train_accuracy, record.validation_accuracy), scale)


def loss(findings: Findings) -> Figure | None:
    """Draw the cross-entropy of every task as heat maps, training above validation (Fig. 7).

    A run with a single task is drawn as two lines. Returns None if no finite, positive loss was recorded.
    """
    record, experiment = findings.run.record, findings.run.experiment
    if record is None or not len(record):
        return None
    losses = np.concatenate([record.train_loss, record.validation_loss])
    drawable = losses[np.isfinite(losses) & (losses > 0)]
    if not len(drawable):
        return None
    label = "cross-entropy (nats)"
    if len(experiment.task_moduli) == 1:
        figure, axes = _lines(record.epoch, record.train_loss, record.validation_loss)
        axes.axhline(guessing_losses(experiment)[0], color="grey", linestyle="--", linewidth=0.8, label="chance")
        axes.set(ylabel=label, yscale="log")
        axes.legend(loc="best")
        return figure
    lowest = max(MIN_DRAWN_LOSS, float(drawable.min()))
    scale = _ColourScale(
        label,
        LogNorm(lowest, max(float(drawable.max()), 1.01 * lowest)),
        f"{SEQUENTIAL}_r",  # reversed, so that bright means learned as in the heat maps of the accuracy
        "min" if drawable.min() < lowest else "neither",
    )
    clipped = np.maximum(record.train_loss, lowest), np.maximum(record.validation_loss, lowest)
    return _heat_maps(experiment, record.epoch, clipped, scale)


def learning_curves(experiment: Experiment, record: Record, title: str, solved_epoch: int | None = None) -> bytes:
    """Draw accuracy and cross-entropy of every task as lines over the epoch (logarithmic).

    Validation is drawn solid and training dotted, in the colour of the task's modulus. The black line is the mean
    validation accuracy over the scored tasks, which the study maximises.

    Args:
        experiment: The experiment.
        record: Its record. It may be empty.
        title: Title of the figure.
        solved_epoch: Epoch at which the run was solved, drawn as a vertical line.

    Returns:
        The figure as PNG.
    """
    with default_style():
        figure = new_figure(9, 3.4)
        accuracy_axes, loss_axes = figure.subplots(1, 2)
        _plot_task_curves(accuracy_axes, loss_axes, experiment, record)
        for axes, label in [(accuracy_axes, "accuracy"), (loss_axes, "cross-entropy (nats)")]:
            set_log_epoch_axis(axes, max_ticks=9)
            axes.set_ylabel(label)
            axes.grid(alpha=0.25)
            if solved_epoch is not None:
                axes.axvline(solved_epoch, color="tab:green", linewidth=1, label=f"solved at {solved_epoch:,}")
        accuracy_axes.set_ylim(-0.02, 1.02)
        losses = np.stack([record.train_loss, record.validation_loss])
        if np.any(np.isfinite(losses) & (losses > 0)):  # a logarithmic axis needs a positive value
            loss_axes.set_yscale("log")
        handles, _ = accuracy_axes.get_legend_handles_labels()
        if handles:
            accuracy_axes.legend(loc="best", fontsize="x-small", frameon=False)
        loss_axes.plot([], [], color="grey", linewidth=1, label="validation")
        loss_axes.plot([], [], color="grey", linestyle=":", linewidth=0.8, label="training")
        loss_axes.legend(loc="best", fontsize="x-small", frameon=False)
        if len(experiment.task_moduli) > MAX_LABELLED_CURVES:
            figure.colorbar(task_colours(experiment.task_moduli)[1], ax=loss_axes, label="modulus q")
        figure.suptitle(escape_text(title), fontsize="small")
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        return file.getvalue()


def _plot_task_curves(accuracy_axes: Axes, loss_axes: Axes, experiment: Experiment, record: Record) -> None:
    colours, _ = task_colours(experiment.task_moduli)
    for task, (q, colour) in enumerate(zip(experiment.task_moduli, colours, strict=True)):
        label = f"q = {q}" if len(experiment.task_moduli) <= MAX_LABELLED_CURVES else None
        for axes, train, validation in [
            (accuracy_axes, record.train_accuracy, record.validation_accuracy),
            (loss_axes, record.train_loss, record.validation_loss),
        ]:
            axes.plot(record.epoch, train[:, task], color=colour, linestyle=":", linewidth=0.8)
            axes.plot(record.epoch, validation[:, task], color=colour, linewidth=1, label=label)
    scored = np.asarray(experiment.scored)
    if scored.sum() > 1:
        mean = record.validation_accuracy[:, scored].mean(axis=1)
        accuracy_axes.plot(record.epoch, mean, color="black", linewidth=2, label="mean")


def _lines(epochs: NDArray[np.int32], train: Floats, validation: Floats) -> tuple[Figure, Axes]:
    figure = new_figure(COLUMN_WIDTH, 2.0)
    axes = figure.subplots()
    axes.plot(epochs, train[:, 0], ":", color=TRAINING_COLOUR, label="training")
    axes.plot(epochs, validation[:, 0], color=VALIDATION_COLOUR, label="validation")
    set_log_epoch_axis(axes)
    return figure, axes


def _heat_maps(
    experiment: Experiment, epochs: NDArray[np.int32], values: tuple[Floats, Floats], scale: _ColourScale
) -> Figure:
    """Draw two heat maps, each with one row per task.

    Args:
        experiment: The experiment.
        epochs: Epochs of the evaluations `[evaluations]`.
        values: Training and validation values, both `[evaluations, tasks]`.
        scale: The colours of both.
    """
    tasks = len(experiment.task_moduli)
    height = max(MIN_HEIGHT, ROW_HEIGHT * tasks, min(LABELLED_ROW_HEIGHT * tasks, MAX_HEIGHT_FOR_LABELS))
    figure = new_figure(COLUMN_WIDTH, 2 * height + 1.2)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, split_values, title in zip(panels, values, ("training", "validation"), strict=True):
        image = draw_over_epochs(axes, epochs, split_values, scale.norm, colormap=scale.colormap)
        label_task_rows(axes, experiment, experiment.task_moduli, height / tasks)
        axes.invert_yaxis()
        axes.set_title(title)
        axes.label_outer()
    figure.colorbar(image, ax=panels, location="top", label=scale.label, extend=scale.extend, aspect=40)
    return figure
