"""Comparison of several runs through training: accuracy and frequencies (sections 4.2 and 4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from miiii_search.analysis.activity import FrequencyActivity
from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.heatmaps import merge_into_columns
from miiii_search.analysis.figures.panels import (
    PANELS_PER_ROW,
    create_panels,
    label_shared_axes,
    legend_columns,
    wrap_name,
)
from miiii_search.analysis.findings import Findings
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment

ACTIVATION_RANGE = (2.0, 8.0)
"""Smallest and largest upper end of the colour scale, relative to a uniform activation."""


def compare_activity(findings: Sequence[Findings]) -> Figure | None:
    """Draw the activation of each digit's frequencies through training, and the number of active ones (Fig. 17, 21)."""
    runs = [(found.run.name, found.activity) for found in findings if found.activity is not None]
    if not runs:
        return None
    figure = style.new_figure(style.PAGE_WIDTH, 4.6)
    panels = figure.subplots(3, len(runs), sharex=True, sharey="row", squeeze=False, height_ratios=[1.2, 1.2, 1])
    strongest = max(activity.activation.max() * activity.activation.shape[2] for _, activity in runs)
    normalize = Normalize(0, float(np.clip(strongest, *ACTIVATION_RANGE)))
    for column, (name, activity) in zip(panels.T, runs, strict=True):
        for digit, axes in enumerate(column[:2]):
            _activation(axes, activity, digit, normalize)
        _counts(column[2], activity)
        column[2].tick_params(axis="x", labelrotation=0 if len(runs) <= PANELS_PER_ROW else 90)
        column[0].set_title(wrap_name(name, max(len(runs), 3)))
    for digit, axes in enumerate(panels[:2, 0]):
        axes.set_ylabel(f"frequency $k$ of $x_{digit}$")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    panels[2, 0].set_ylabel("active frequencies")
    panels[2, 0].yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    most = max(1, *(int(activity.counts().max()) for _, activity in runs))
    panels[2, 0].set_ylim(-0.08 * most, 1.1 * most)
    panels[2, -1].legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    extend = "max" if strongest > ACTIVATION_RANGE[1] else "neither"
    label = "activation (1: all frequencies equal)"
    scale = ScalarMappable(normalize, style.SEQUENTIAL)
    figure.colorbar(scale, ax=list(panels[:2].ravel()), label=label, extend=extend, aspect=30)
    return figure


def compare_accuracy(findings: Sequence[Findings]) -> Figure | None:
    """Draw the validation accuracy of every task through training, and the means over the scored tasks (Fig. 6, 20)."""
    runs = [(found, found.run.record) for found in findings if found.run.record is not None and len(found.run.record)]
    if not runs:
        return None
    figure, panels = create_panels(len(runs), 1.7, sharex=True)
    several = [found.run.experiment for found, _ in runs if len(found.run.experiment.task_moduli) > 1]
    moduli = sorted({q for experiment in several for q in experiment.task_moduli})
    colours, scale = style.task_colours(moduli or [2])
    for axes, (found, record) in zip(panels, runs, strict=True):
        _accuracies(axes, found.run.experiment, record, dict(zip(moduli, colours, strict=False)))
        axes.set_title(wrap_name(found.run.name, min(len(runs), PANELS_PER_ROW)))
    label_shared_axes(figure, "epoch", "accuracy")
    labelled = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend([*labelled.values()], [*labelled], loc="outside upper center", ncols=legend_columns([*labelled]))
    if moduli:
        ticks = [q for q in (2, 5, 10, 20, 50, 100, 200) if moduli[0] <= q <= moduli[-1]]
        bar = figure.colorbar(scale, ax=panels, label="validation: modulus $q$", ticks=ticks, format="{x:g}")
        bar.ax.minorticks_off()
    return figure


def _activation(axes: Axes, activity: FrequencyActivity, digit: int, normalize: Normalize) -> None:
    m = activity.activation.shape[2]
    axes.pcolormesh(
        merge_into_columns(activity.epochs)[1],
        0.5 + np.arange(m + 1),
        m * activity.activation[:, digit].T,
        norm=normalize,
        cmap=style.SEQUENTIAL,
        rasterized=True,
    )


def _counts(axes: Axes, activity: FrequencyActivity) -> None:
    """Draw the number of active frequencies, such that both digits are visible if they are equal."""
    counts = activity.counts()
    axes.plot(activity.epochs, counts[:, 0], color=style.OKABE_ITO[0], marker="o", markersize=4.5, label="of $x_0$")
    axes.plot(
        activity.epochs, counts[:, 1], color=style.OKABE_ITO[1], marker="s", markersize=2, ls="--", label="of $x_1$"
    )
    _few_epochs(axes)


def _accuracies(axes: Axes, experiment: Experiment, record: Record, colours: Mapping[int, Any]) -> None:
    scored = np.asarray(experiment.scored)
    if len(experiment.task_moduli) > 1:
        for task, q in enumerate(experiment.task_moduli):
            line, label = ("-", None) if scored[task] else ("--", "validation, not scored")
            accuracy = record.validation_accuracy[:, task]
            axes.plot(record.epoch, accuracy, color=colours[q], linewidth=0.6, linestyle=line, label=label)
    train, validation = record.train_accuracy[:, scored], record.validation_accuracy[:, scored]
    axes.plot(record.epoch, train.mean(axis=1), color="black", linestyle=":", label="training, mean")
    axes.plot(record.epoch, validation.mean(axis=1), color="black", linewidth=1.4, label="validation, mean")
    axes.set_ylim(-0.02, 1.02)
    _few_epochs(axes)
    axes.set_xlabel("")


def _few_epochs(axes: Axes) -> None:
    """Set up the epoch axis of a narrow panel."""
    style.set_log_epoch_axis(axes)
    axes.xaxis.set_major_locator(LogLocator(base=4, numticks=4))
