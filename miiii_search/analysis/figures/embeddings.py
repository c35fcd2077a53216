"""Figures of the embeddings: positions, singular values and frequencies (Fig. 8 to 14)."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from miiii_search.analysis.figures.style import COLUMN_WIDTH, DIVERGING, OKABE_ITO, format_signed, new_figure
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.fourier import in_fourier_basis

MAX_VECTORS = 8
"""Largest number of singular vectors in a figure."""

MAX_LABELS = 10
"""Largest number of frequencies with a label, strongest first."""

LABELS_PER_ROW = 25
"""Number of two-digit labels that fit next to each other."""


def positions(findings: Findings) -> Figure | None:
    """Draw the embeddings of both positions, and one against the other with Pearson's r (Fig. 8)."""
    if findings.network is None:
        return None
    table = findings.network.weights["position_embedding"][:2].astype(np.float64)
    limit = float(np.abs(table).max()) or 1.0
    figure = new_figure(COLUMN_WIDTH, 1.9)
    strips, scatter = figure.subplots(1, 2)
    image = strips.imshow(table, cmap=DIVERGING, norm=Normalize(-limit, limit), aspect="auto", interpolation="nearest")
    strips.set_yticks([0, 1], ["$x_0$", "$x_1$"])
    strips.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    strips.set_xlabel("dimension")
    figure.colorbar(image, ax=strips, location="top", label="position embedding", aspect=25)
    scatter.axline((0, 0), slope=1, color="0.8", linewidth=0.8, zorder=0)
    scatter.plot(table[0], table[1], ".", markersize=3, markeredgewidth=0, color=OKABE_ITO[0], rasterized=True)
    tick = float(f"{0.7 * limit:.1g}")
    span = (-1.1 * limit, 1.1 * limit)
    scatter.set(xlim=span, ylim=span, xticks=[-tick, tick], yticks=[-tick, tick], aspect="equal")
    r = format_signed(findings.network.embeddings.position_correlation)
    scatter.set(xlabel="position $x_0$", ylabel="position $x_1$", title=f"r = {r}")
    return figure


def singular_values(findings: Findings) -> Figure | None:
    """Draw the singular values of the digits' embedding, and where their squares reach 50 % and 90 % (Fig. 9)."""
    if findings.network is None:
        return None
    singular = findings.network.embeddings.singular
    figure = new_figure(COLUMN_WIDTH, 1.9)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(singular.values) + 1), singular.values, ".-", markersize=3.5, linewidth=0.8)
    for (mark, count), colour in zip(singular.rank_by_share.items(), OKABE_ITO[1:], strict=False):
        axes.axvline(count, color=colour, linestyle="--", label=f"{mark:.0%} of the variance: {count}")
    axes.set(xlabel="index", ylabel="singular value", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def singular_vectors(findings: Findings) -> Figure | None:
    """Draw the leading singular vectors over the digits, up to half of the variance (Fig. 10, 11)."""
    if findings.network is None:
        return None
    singular = findings.network.embeddings.singular
    half = singular.rank_by_share[0.5]
    shown = min(half, MAX_VECTORS)
    limit = 1.1 * float(np.abs(singular.vectors[:, :shown]).max())
    figure = new_figure(COLUMN_WIDTH, 0.75 + 0.5 * shown)
    panels = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    for index, axes in enumerate(panels):
        frequency, share = singular.frequency(index)
        axes.axhline(0, color="0.8", linewidth=0.8)
        axes.plot(singular.vectors[:, index], ".-", markersize=2.5, linewidth=0.7, color=OKABE_ITO[0])
        axes.set(ylim=(-limit, limit), yticks=[0], yticklabels=[f"{index + 1}"])
        axes.set_title(f"k = {frequency}, {share:.0%}", loc="right", fontsize=7, pad=1)
    panels[0].set_title(f"{shown} of {half} that hold 50 %", loc="left", fontsize=7, pad=1)
    panels[-1].set_xlabel("digit")
    panels[-1].xaxis.set_major_locator(MaxNLocator(7, integer=True))
    figure.supylabel("singular vector", fontsize=8)
    return figure


def fourier_embedding(findings: Findings) -> Figure | None:
    """Draw the digits' embedding in the Fourier basis, with one row per function of the basis (Fig. 12 to 14)."""
    if findings.network is None:
        return None
    coefficients = in_fourier_basis(findings.network.weights["token_embedding"][:-1])
    limit = float(np.abs(coefficients).max()) or 1.0
    p, d = coefficients.shape
    figure = new_figure(COLUMN_WIDTH, 2.7)
    axes = figure.subplots()
    # Rows 2k − 1 and 2k are cos and sin of frequency k: centred on k, each is half a unit high.
    image = axes.imshow(
        coefficients,
        cmap=DIVERGING,
        norm=Normalize(-limit, limit),
        aspect="auto",
        interpolation="nearest",  # half the file size of an interpolated image
        extent=(-0.5, d - 0.5, p / 2, 0),
    )
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(xlabel="dimension", ylabel="frequency $k$ (cos above sin)")
    figure.colorbar(image, ax=axes, label="coefficient")
    return figure


def frequency_norms(findings: Findings) -> Figure | None:
    """Draw the norm of the embedding at each frequency, with the noise threshold and the active frequencies."""
    if findings.network is None:
        return None
    found = findings.network.embeddings.frequencies
    norms, active = np.sqrt(found.energies), found.active
    frequencies = np.arange(1, len(norms) + 1)
    figure = new_figure(COLUMN_WIDTH, 1.9)
    axes = figure.subplots()
    colours = [OKABE_ITO[1] if k in active else "0.6" for k in frequencies]
    axes.bar(frequencies, norms, width=0.8, color=colours)
    axes.axhline(np.sqrt(found.threshold), color="black", linestyle="--", linewidth=0.8, label="noise threshold")
    for k in _labelled(active, norms):
        axes.annotate(f"{k}", (k, norms[k - 1]), (0, 1), textcoords="offset points", ha="center", fontsize=6)
    axes.set(xlabel="frequency $k$", ylabel="L2 norm", xlim=(0, len(norms) + 1))
    axes.set_ylim(0, 1.1 * max(float(norms.max()), float(np.sqrt(found.threshold))) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_title(f"{len(active)} of {len(norms)} above the threshold", loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def _labelled(active: NDArray[np.intp], norms: NDArray[np.float64]) -> list[int]:
    """Return the strongest active frequencies, without those whose label would overlap that of a stronger one."""
    room, chosen = len(norms) // LABELS_PER_ROW, list[int]()
    for k in sorted(active.tolist(), key=lambda k: -norms[k - 1])[:MAX_LABELS]:
        if all(abs(k - other) > room for other in chosen):
            chosen.append(k)
    return chosen
