"""Comparison of the final weights of several runs (sections 4.3 to 4.5), with one panel or one line per run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from miiii_search.analysis.attention import digit_preference
from miiii_search.analysis.embeddings import VARIANCE_SHARES, SingularValues
from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.panels import (
    PANELS_PER_ROW,
    create_panels,
    label_shared_axes,
    legend_columns,
    wrap_name,
)
from miiii_search.analysis.findings import Findings, NetworkFindings

LINES = ("-", "--", ":", "-.")
"""Line styles. The next one is used when all colours have been used with the previous one."""

MARKERS = ("o", "s")
"""Markers for 50 % and for 90 % of the variance."""

MAX_SEPARATE_BARS = 30
"""Number of bars in a panel up to which there are gaps between them. More gaps would have unequal widths."""

NOISE_LABEL = "noise threshold (exceeded in 1 of 100 random tables)"


def compare_positions(findings: Sequence[Findings]) -> Figure | None:
    """Draw the embedding of the second position against that of the first, one dot per dimension (Fig. 8)."""
    runs = _with_weights(findings)
    if not runs:
        return None
    tables = [network.weights["position_embedding"][:2].astype(np.float64) for _, network in runs]
    limit = 1.05 * max(np.abs(table).max() for table in tables)
    figure, panels = create_panels(len(runs), 1.75, sharex=True)
    for axes, (name, network), (first, second) in zip(panels, runs, tables, strict=True):
        axes.axline((0, 0), slope=1, color="0.8", linewidth=0.6)
        axes.scatter(first, second, s=5, color=style.OKABE_ITO[0], linewidths=0, alpha=0.6, rasterized=True)
        correlation = style.format_signed(network.embeddings.position_correlation)
        axes.set_title(f"{wrap_name(name, min(len(runs), PANELS_PER_ROW))}\nr = {correlation}")
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    label_shared_axes(figure, "position embedding of $x_0$", "position embedding of $x_1$")
    return figure


def compare_singular_values(findings: Sequence[Findings]) -> Figure | None:
    """Draw the singular values of the digits' embedding, one line per run (Fig. 9).

    Markers show where the squares sum to 50 % and to 90 % of the variance.
    """
    runs = _with_weights(findings)
    if not runs:
        return None
    figure = style.new_figure(style.COLUMN_WIDTH, 2.4)
    axes = figure.subplots()
    for (name, network), (colour, line) in zip(runs, _line_styles(), strict=False):
        _singular_values(axes, network.embeddings.singular, name, colour, line)
    for marker, mark in zip(MARKERS, VARIANCE_SHARES, strict=True):
        axes.plot(
            [], [], marker=marker, linestyle="", color="0.4", markersize=4, label=f"{100 * mark:.0f} % of variance"
        )
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("singular value / largest one")
    axes.legend()
    return figure


def compare_embeddings(findings: Sequence[Findings]) -> Figure | None:
    """Draw the share of the embedding's energy at each frequency, and the noise threshold (Fig. 12 to 14)."""
    runs = _with_weights(findings)
    if not runs:
        return None
    figure, panels = create_panels(len(runs), 1.6)
    for axes, (name, network) in zip(panels, runs, strict=True):
        found = network.embeddings.frequencies
        total = found.energies.sum() or 1.0
        k = 1 + np.arange(len(found.energies))
        active = np.isin(k, found.active)
        width = 0.8 if len(k) <= MAX_SEPARATE_BARS else 1.0
        axes.bar(k[active], 100 * found.energies[active] / total, width=width, color=style.OKABE_ITO[0])
        axes.bar(k[~active], 100 * found.energies[~active] / total, width=width, color="0.7")
        if np.isfinite(found.threshold):
            threshold = 100 * found.threshold / total
            axes.axhline(threshold, color=style.OKABE_ITO[1], linewidth=width, linestyle="--", label=NOISE_LABEL)
        axes.set_xlim(0.3, len(k) + 0.7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.set_title(f"{wrap_name(name, min(len(runs), PANELS_PER_ROW))}\n{active.sum()} of {len(k)} active")
    label_shared_axes(figure, "frequency $k$", "share of energy (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center")
    return figure


def compare_neurons(findings: Sequence[Findings]) -> Figure | None:
    """Draw how much of the neurons' variance is at two frequencies, and at a single one (Fig. 15, 16).

    A curve shows the percentage of neurons that have at least a certain share of their variance there.
    """
    runs = _with_weights(findings)
    if not runs:
        return None
    figure = style.new_figure(style.PAGE_WIDTH, 2.4)
    panels = figure.subplots(1, 2, sharey=True)
    for (name, network), (colour, line) in zip(runs, _line_styles(), strict=False):
        neurons = network.neurons
        for axes, explained in zip(panels, (neurons.explained, neurons.single_explained), strict=True):
            alive = np.sort(explained[neurons.alive])
            if len(alive):
                # The curve starts with all neurons at a share of 0 and ends at the best explained neuron.
                left = 100 * (1 - np.arange(len(alive) + 1) / len(alive))
                share = 100 * np.concatenate([[0], alive])
                axes.step(share, left, where="post", color=colour, linestyle=line, label=name)
    for axes, title in zip(
        panels, ("the dominant frequency of each digit", "one frequency for both digits"), strict=True
    ):
        axes.set(xlim=(0, 100), ylim=(0, 102))
        axes.set_xlabel(f"variance at {title} (%)")
    panels[0].set_ylabel("neurons with at least this share (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=legend_columns(labels))
    return figure


def compare_attention(findings: Sequence[Findings]) -> Figure | None:
    """Draw the attention from ŷ to x0 over the grid, with one row per run and one column per head (Fig. 19)."""
    runs = [(found, found.network) for found in findings if found.network is not None]
    if not runs:
        return None
    heads = max(len(network.activations.attention) for _, network in runs)
    width = style.PAGE_WIDTH if heads > 2 else style.COLUMN_WIDTH
    side = min(1.3, (width - 1.4) / heads)
    figure = style.new_figure(width, len(runs) * (side + 0.22) + 0.4)
    panels = figure.subplots(len(runs), heads, squeeze=False)
    normalize = Normalize(0, 1)
    for row, (found, network) in zip(panels, runs, strict=True):
        p = found.run.experiment.p
        preferences = digit_preference(network.activations.attention).mean
        for head, axes in enumerate(row):
            axes.set(xticks=[], yticks=[])
            if head >= len(preferences):
                axes.set_axis_off()
                continue
            image = network.activations.attention[head, 0].reshape(p, p)
            axes.imshow(image, norm=normalize, cmap=style.SEQUENTIAL, interpolation="nearest")
            axes.spines[:].set_visible(False)
            axes.set_title(style.format_signed(preferences[head]), pad=2)
        row[0].set_ylabel(f"{found.run.name}\n$x_0$ →", rotation=90)
    for axes in panels[-1]:
        axes.set_xlabel("$x_1$ →")
    scale = ScalarMappable(normalize, style.SEQUENTIAL)
    figure.colorbar(scale, ax=list(panels.ravel()), label="attention from ŷ to $x_0$", aspect=30, shrink=0.8)
    line_break = " " if width == style.PAGE_WIDTH else "\n"
    title = f"above each panel: the head's preference,{line_break}1 is $x_0$ only, −1 is $x_1$ only"
    figure.suptitle(title, fontsize=7)
    return figure


def _singular_values(axes: Axes, found: SingularValues, name: str, colour: str, line: str) -> None:
    height = found.values / (found.values[0] or 1.0)
    axes.plot(1 + np.arange(len(height)), height, color=colour, linestyle=line, label=name)
    for marker, at in zip(MARKERS, found.rank_by_share.values(), strict=True):
        axes.plot(at, height[at - 1], marker=marker, color=colour, markersize=4)


def _with_weights(findings: Sequence[Findings]) -> list[tuple[str, NetworkFindings]]:
    """Return the name and the findings of each run that has weights."""
    return [(found.run.name, found.network) for found in findings if found.network is not None]


def _line_styles() -> Iterator[tuple[str, str]]:
    """Return an endless iterator over colours and line styles. The first 28 pairs are different."""
    colours = style.OKABE_ITO
    return cycle((colour, line) for line in LINES for colour in colours)
