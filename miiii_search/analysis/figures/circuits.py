"""Which circuits which task needs: what is lost without a frequency, a head, a group of neurons."""

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

EMPTY = "#d9d9d9"
"""Where there is nothing that could be taken out."""

LEAST_RANGE = NEEDED_DROP
"""Colours and axes span at least so much, so that the luck of the samples does not look like an effect."""

MOST_LABELS = 32
"""Tasks of which each can have a label; of more, every second has one."""

POINTS = FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}".replace("-", "−"))


def circuits_by_task(findings: Findings) -> Figure | None:
    """Change of every task's accuracy without each part of the final network; None without weights.

    A matrix for the frequencies of the embedding, one for the neurons of each dominant frequency, one for the heads:
    a row a part, a column a task. Below stands the accuracy with nothing taken out, since what is not there cannot be
    lost. With a single task, bars.
    """
    if not findings.ablations:
        return None
    ablations, moduli = findings.ablations[-1], findings.run.experiment.moduli
    return _bars(ablations) if len(moduli) == 1 else _matrices(ablations, moduli)


def circuits_through_training(findings: Findings) -> Figure | None:
    """Change of mean accuracy without each frequency and each head, a column a snapshot; None without snapshots.

    A circle marks those that are gone at the end, where they were needed most.
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
    gone = transient_frequencies(findings.ablations, scored)
    gone_heads = transient_heads(findings.ablations, scored)
    _mark(above, epochs, {k - 1: epoch for k, epoch in gone.items()})
    _mark(below, epochs, gone_heads)
    if gone or gone_heads:
        handles, labels = (above if gone else below).get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", handletextpad=0.2)
    below.set_xticks(range(len(epochs)), [f"{epoch:,}" for epoch in epochs], rotation=90 if len(epochs) > 5 else 0)
    below.set_xlabel("epoch")
    _colour_bar(figure, [above, below], normalize, "change of mean accuracy (points)")
    return figure


def _matrices(ablations: Ablations, moduli: Sequence[int]) -> Figure:
    groups = np.where(ablations.group_sizes[:, None] > 0, ablations.groups, np.nan)
    normalize = _symmetric(ablations.frequencies, ablations.groups, ablations.heads)
    inches = [_inches(len(groups)), _inches(len(ablations.heads))]
    figure = style.new_figure(style.PAGE_WIDTH, sum(inches) + 1)
    panels = figure.subplots(2, 2, sharex=True, height_ratios=inches)
    (by_frequency, by_group), (by_head, whole) = panels
    _matrix(by_frequency, ablations.frequencies, normalize, "frequency $k$\nof the embedding")
    _matrix(by_group, groups, normalize, "neurons whose\nfrequency of $x_0$ is $k$")
    _matrix(by_head, ablations.heads, normalize, "head", first=0)
    whole.bar(range(len(moduli)), 100 * ablations.accuracy, color="0.4", width=0.7)
    whole.set_ylim(0, 100)
    whole.set_ylabel("whole network:\naccuracy (%)")
    step = 1 if len(moduli) <= MOST_LABELS else 2
    for axes in (by_head, whole):
        axes.set_xticks(range(0, len(moduli), step), [str(q) for q in moduli[::step]])
        axes.tick_params(axis="x", labelrotation=90 if len(moduli) > 10 else 0, labelsize=6)
        axes.set_xlabel("task: modulus $q$")
    _colour_bar(figure, list(panels.ravel()), normalize, "change of accuracy (points)")
    return figure


def _bars(ablations: Ablations) -> Figure:
    """Of one task: as a length what a matrix of a single column would show as a colour."""
    figure = style.new_figure(style.PAGE_WIDTH, 2)
    parts = [
        (ablations.frequencies[:, 0], "frequency $k$ of the embedding", 1),
        (ablations.groups[:, 0], "neurons whose frequency of $x_0$ is $k$", 1),
        (ablations.heads[:, 0], "head", 0),
    ]
    lowest = min(-LEAST_RANGE, *(change.min() for change, *_ in parts))
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
    axes.set_facecolor(EMPTY)
    axes.imshow(values, norm=normalize, cmap=style.DIVERGING, aspect="auto", interpolation="nearest")
    axes.spines[:].set_visible(False)
    _count(axes.yaxis, len(values), first)
    axes.set_ylabel(label)


def _mark(axes: Axes, epochs: Sequence[int], gone: Mapping[int, int]) -> None:
    """`gone`: the epoch at which to mark a row."""
    axes.scatter(
        [epochs.index(epoch) for epoch in gone.values()],
        list(gone),
        s=14,
        facecolors="none",
        edgecolors=style.OKABE_ITO[1],
        linewidths=1,
        label="needed most here, gone at the end",
    )


def _count(axis: Axis, n: int, first: int) -> None:
    """Ticks at things that stand at 0, 1, 2 … and are counted from `first`."""
    step = 1 if n <= 12 else 5 if n <= 60 else 10
    shown = [k for k in range(first, first + n) if k == first or k % step == 0]
    axis.set_ticks([k - first for k in shown], [str(k) for k in shown])


def _symmetric(*parts: NDArray[np.float64]) -> Normalize:
    limit = max(LEAST_RANGE, *(float(np.abs(part).max()) for part in parts))
    return Normalize(-limit, limit)


def _inches(rows: int) -> float:
    """The height of a matrix: its rows can be told apart, and two matrices fit on a page."""
    return float(np.clip(0.15 * rows, 0.95, 4.5))


def _colour_bar(figure: Figure, panels: list[Axes], normalize: Normalize, label: str) -> None:
    figure.colorbar(ScalarMappable(normalize, style.DIVERGING), ax=panels, format=POINTS, label=label, aspect=40)
