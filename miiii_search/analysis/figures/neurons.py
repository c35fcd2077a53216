"""Figures of the neurons and their frequencies (Fig. 5, 15, 16)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from miiii_search.analysis.figures.heatmaps import crop, draw_grid, label_grid_axes
from miiii_search.analysis.figures.style import COLUMN_WIDTH, OKABE_ITO, new_figure
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.fourier import grid_power, n_frequencies

SHOWN_NEURONS = 3
"""Number of neurons side by side, as in Fig. 15."""

FULL_VARIANCE_AREA = 80
"""Area in points² of a dot for all of a neuron's variance."""

MIN_DRAWN_SHARE, LEGEND_SHARES = 0.002, (0.02, 0.1, 0.4)
"""Smallest visible share of the variance, and the shares in the legend."""

DOT_COLOUR = OKABE_ITO[2]

LARGEST_COUNT_AREA = 80
"""Area in points² of the dot for the most frequent pair of frequencies."""


def neuron_grids(findings: Findings) -> Figure | None:
    """Draw the neurons with the largest variance (Fig. 5, 15).

    The upper panels show the activation over the first values of both digits, the lower ones the power at each pair of
    frequencies.
    """
    if findings.network is None:
        return None
    neurons, p = findings.network.neurons, findings.run.experiment.p
    chosen = np.argsort(-neurons.variance, kind="stable")[:SHOWN_NEURONS]
    chosen = chosen[neurons.alive[chosen]]
    if not len(chosen):
        return None
    grids = findings.network.activations.neurons[chosen].reshape(-1, p, p).astype(np.float64)
    power = grid_power(grids - grids.mean(axis=(1, 2), keepdims=True))
    power /= power.sum(axis=(1, 2), keepdims=True)
    figure = new_figure(COLUMN_WIDTH, 3.4)
    panels = figure.subplots(2, len(chosen), squeeze=False, gridspec_kw={"hspace": 0.08})
    scale = Normalize(0, float(grids.max()))
    for column, neuron in enumerate(chosen):
        above, below = panels[:, column]
        image = draw_grid(above, crop(grids[column]), norm=scale)
        above.set_title(f"neuron {neuron}")
        _dots(below, power[column])
        k0, k1 = neurons.frequency[neuron]
        below.set_title(f"$k$ = {k0}, {k1}: {neurons.explained[neuron]:.0%}")
        if column:
            for axes in (above, below):
                axes.set(ylabel="", yticklabels=[])
    figure.colorbar(image, ax=panels[0], label="activation", location="top", aspect=40)
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            markersize=np.sqrt(FULL_VARIANCE_AREA * share),
            markeredgewidth=0,
            color=DOT_COLOUR,
        )
        for share in LEGEND_SHARES
    ]
    names = [f"{share:.0%}" for share in LEGEND_SHARES[:-1]] + [f"{LEGEND_SHARES[-1]:.0%} of the variance"]
    figure.legend(handles, names, loc="outside lower center", ncols=len(LEGEND_SHARES))
    return figure


def _dots(axes: Axes, power: NDArray[np.float64]) -> None:
    """Draw one dot per pair of frequencies, with the power as its area.

    In a heat map a single cell would be easy to miss.

    Args:
        axes: The axes.
        power: Shares of the variance `[k of x0, k of x1]`.
    """
    rows, columns = np.nonzero(power > MIN_DRAWN_SHARE)
    axes.scatter(
        columns,
        rows,
        FULL_VARIANCE_AREA * power[rows, columns],
        DOT_COLOUR,
        linewidths=0,
        clip_on=False,
        rasterized=True,
    )
    last = len(power) - 1
    axes.set(xlim=(-0.5, last + 0.5), ylim=(last + 0.5, -0.5), aspect="equal", xticks=[0, last], yticks=[0, last])
    label_grid_axes(axes, "$k$ of $x_1$", "$k$ of $x_0$")


def neuron_frequencies(findings: Findings) -> Figure | None:
    """Draw the dominant frequencies of all neurons, and the share of their variance at these frequencies."""
    if findings.network is None:
        return None
    neurons = findings.network.neurons
    alive = neurons.alive
    if not alive.any():
        return None
    last = n_frequencies(findings.run.experiment.p)
    pairs, counts = np.unique(neurons.frequency[alive], axis=0, return_counts=True)
    figure = new_figure(COLUMN_WIDTH, 2.0)
    scatter, histogram = figure.subplots(1, 2)
    area = LARGEST_COUNT_AREA * counts / counts.max()
    scatter.scatter(pairs[:, 1], pairs[:, 0], area, DOT_COLOUR, linewidths=0, alpha=0.7, rasterized=True)
    scatter.set(xlabel="$k$ of $x_1$", ylabel="$k$ of $x_0$", aspect="equal")
    scatter.set_title(f"{alive.sum()} neurons,\nlargest dot: {counts.max()}")
    scatter.set(xlim=(0, last + 1), ylim=(last + 1, 0))
    for axis in (scatter.xaxis, scatter.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True))
    bins = np.linspace(0, 1, 21)
    kinds = {"$k$ of $x_0$, $k$ of $x_1$": neurons.explained, "one $k$ for both": neurons.single_explained}
    for (label, values), colour in zip(kinds.items(), OKABE_ITO, strict=False):
        histogram.hist(values[alive], bins, histtype="step", color=colour, label=label)
        histogram.axvline(neurons.median(values), color=colour, linestyle=":", linewidth=0.8)
    histogram.set(xlabel="share of variance", ylabel="number of neurons", xlim=(0, 1))
    histogram.xaxis.set_major_formatter(PercentFormatter(1))
    histogram.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure
