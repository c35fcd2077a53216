"""Effects of ablations on each task: frequencies, attention heads and groups of neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from miiii_search.analysis.circuits import NEEDED_DROP, Ablations, accuracy_lost, transient_frequencies, transient_heads
from miiii_search.analysis.figures import style
from miiii_search.analysis.findings import Findings

EMPTY_COLOUR = "#d9d9d9"
"""Colour of frequencies that are dominant in no neuron."""

MIN_RANGE = NEEDED_DROP
"""Smallest range of colours and axes, so that chance differences between samples do not look like effects."""

MAX_LABELS = 32
"""Number of tasks up to which every task has a label. Otherwise every second task has one."""

POINTS = FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}".replace("-", "−"))


def circuits_by_task(findings: Findings) -> Figure | None:
    """Draw the change of every task's accuracy without each part of the final network.

    There are heat maps for the frequencies of the embedding, for the neurons of each dominant frequency, and for the
    heads. Each row is a part and each column a task. The fourth panel shows the accuracy of the whole network, since a
    task cannot lose more than that. A single task is drawn as bars. Returns None if there are no weights.
    """
    if not findings.ablations:
        return None
    ablations, moduli = findings.ablations[-1], findings.run.experiment.task_moduli
    return _bars(ablations) if len(moduli) == 1 else _matrices(ablations, moduli)


def circuits_through_training(findings: Findings) -> Figure | None:
    """Draw the change of mean accuracy without each frequency and each head, with one column per snapshot.

    A circle marks transient parts at the epoch at which they were needed most. Returns None if there are no snapshots.
    """
    if len(findings.ablations) < 2:
        return None
    scored = findings.run.experiment.scored
    epochs = [ablations.epoch for ablations in findings.ablations]
    frequencies = np.stack([-accuracy_lost(ablations, scored) for ablations in findings.ablations], axis=1)
    heads = np.stack([a.heads[:, np.asarray(scored)].mean(axis=1) for a in findings.ablations], axis=1)
    normalize = _symmetric(frequencies, heads)
    above_inches, below_inches = _inches(len(frequencies)), _inches(len(heads))
    figure = style.new_figure(style.COLUMN_WIDTH, above_inches + below_inches + 1)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[above_inches, below_inches])
    _matrix(above, frequencies, normalize, "frequency $k$\nof the embedding")
    _matrix(below, heads, normalize, "head", first=0)
    transient_k = transient_frequencies(findings.ablations, scored)
    transient_head = transient_heads(findings.ablations, scored)
    _mark(above, epochs, {k - 1: epoch for k, epoch in transient_k.items()})
    _mark(below, epochs, transient_head)
    if transient_k or transient_head:
        handles, labels = (above if transient_k else below).get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", handletextpad=0.2)
    below.set_xticks(range(len(epochs)), [f"{epoch:,}" for epoch in epochs], rotation=90 if len(epochs) > 5 else 0)
    below.set_xlabel("epoch")
    _colour_bar(figure, [above, below], normalize, "change of mean accuracy (points)")
    return figure


def _matrices(ablations: Ablations, moduli: Sequence[int]) -> Figure:
    """Draw one heat map per kind of part, and the accuracy of the whole network."""
    groups = np.where(ablations.group_sizes[:, None] > 0, ablations.groups, np.nan)
    normalize = _symmetric(ablations.frequencies, ablations.groups, ablations.heads)
    inches = [_inches(len(groups)), _inches(len(ablations.heads))]
    figure = style.new_figure(style.PAGE_WIDTH, sum(inches) + 1)
    panels = figure.subplots(2, 2, sharex=True, height_ratios=inches)
    (by_frequency, by_group), (by_head, accuracy_axes) = panels
    _matrix(by_frequency, ablations.frequencies, normalize, "frequency $k$\nof the embedding")
    _matrix(by_group, groups, normalize, "neurons whose\nfrequency of $x_0$ is $k$")
    _matrix(by_head, ablations.heads, normalize, "head", first=0)
    accuracy_axes.bar(range(len(moduli)), 100 * ablations.accuracy, color="0.4", width=0.7)
    accuracy_axes.set_ylim(0, 100)
    accuracy_axes.set_ylabel("whole network:\naccuracy (%)")
    step = 1 if len(moduli) <= MAX_LABELS else 2
    for axes in (by_head, accuracy_axes):
        axes.set_xticks(range(0, len(moduli), step), [str(q) for q in moduli[::step]])
        axes.tick_params(axis="x", labelrotation=90 if len(moduli) > 10 else 0, labelsize=6)
        axes.set_xlabel("task: modulus $q$")
    _colour_bar(figure, list(panels.ravel()), normalize, "change of accuracy (points)")
    return figure


def _bars(ablations: Ablations) -> Figure:
    """Draw bars for a single task, for which a heat map would have one column."""
    figure = style.new_figure(style.PAGE_WIDTH, 2)
    parts = [
        (ablations.frequencies[:, 0], "frequency $k$ of the embedding", 1),
        (ablations.groups[:, 0], "neurons whose frequency of $x_0$ is $k$", 1),
        (ablations.heads[:, 0], "head", 0),
    ]
    lowest = min(-MIN_RANGE, *(change.min() for change, *_ in parts))
    highest = max(0, *(change.max() for change, *_ in parts))
    panels = figure.subplots(1, 3, sharey=True, width_ratios=[3, 3, 1])
    for axes, (change, label, first) in zip(panels, parts, strict=True):
        axes.bar(range(len(change)), change, color=style.OKABE_ITO[0])
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xlim(-0.6, len(change) - 0.4)
        _count(axes.xaxis, len(change), first)
        axes.set_xlabel(label)
    panels[0].set_ylim(lowest - 0.05 * (highest - lowest), highest + 0.05 * (highest - lowest))
    panels[0].yaxis.set_major_formatter(POINTS)
    panels[0].set_ylabel("change of accuracy (points)")
    return figure


def _matrix(axes: Axes, values: NDArray[np.float64], normalize: Normalize, label: str, first: int = 1) -> None:
    """Draw a heat map `[parts, columns]` whose rows are counted from `first`."""
    axes.set_facecolor(EMPTY_COLOUR)
    axes.imshow(values, norm=normalize, cmap=style.DIVERGING, aspect="auto", interpolation="nearest")
    axes.spines[:].set_visible(False)
    _count(axes.yaxis, len(values), first)
    axes.set_ylabel(label)


def _mark(axes: Axes, epochs: Sequence[int], transient: Mapping[int, int]) -> None:
    """Mark transient parts. `transient` contains the epoch to mark, by row."""
    axes.scatter(
        [epochs.index(epoch) for epoch in transient.values()],
        list(transient),
        s=14,
        facecolors="none",
        edgecolors=style.OKABE_ITO[1],
        linewidths=1,
        label="needed most here, not needed at the end",
    )


def _count(axis: Axis, n: int, first: int) -> None:
    """Set the ticks of `n` rows or columns, which are counted from `first`."""
    step = 1 if n <= 12 else 5 if n <= 60 else 10
    shown = [k for k in range(first, first + n) if k == first or k % step == 0]
    axis.set_ticks([k - first for k in shown], [str(k) for k in shown])


def _symmetric(*parts: NDArray[np.float64]) -> Normalize:
    """Return a colour scale that is symmetric about zero and covers all values."""
    limit = max(MIN_RANGE, *(float(np.abs(part).max()) for part in parts))
    return Normalize(-limit, limit)


def _inches(rows: int) -> float:
    """Return the height of a heat map, such that its rows can be distinguished and two of them fit on a page."""
    return float(np.clip(0.15 * rows, 0.95, 4.5))


def _colour_bar(figure: Figure, panels: list[Axes], normalize: Normalize, label: str) -> None:
    figure.colorbar(ScalarMappable(normalize, style.DIVERGING), ax=panels, format=POINTS, label=label, aspect=40)
