"""Attention from ŷ to the digits (Fig. 19)."""

from __future__ import annotations

from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from miiii_search.analysis.figures.heatmaps import draw_grid
from miiii_search.analysis.figures.style import COLUMN_WIDTH, new_figure
from miiii_search.analysis.findings import Findings

HEADS_PER_ROW = 4


def attention_grids(findings: Findings) -> Figure | None:
    """Draw the attention of each head from ŷ to each digit over all inputs. The rest is attention to ŷ itself."""
    if findings.network is None:
        return None
    p = findings.run.experiment.p
    attention = findings.network.activations.attention  # [heads, 3, p²]
    n_heads = len(attention)
    across = min(n_heads, HEADS_PER_ROW)
    down = -(-n_heads // HEADS_PER_ROW)
    figure = new_figure(COLUMN_WIDTH, 0.7 + 2 * down * (0.3 + 2.6 / max(across, 3)))
    panels = figure.subplots(2 * down, across, squeeze=False, sharex=True, sharey=True)
    for axes in panels.ravel():
        axes.set_axis_off()
    for head, to in enumerate(attention):
        block, column = divmod(head, HEADS_PER_ROW)
        for digit in (0, 1):
            axes = panels[2 * block + digit, column]
            axes.set_axis_on()
            image = draw_grid(axes, to[digit].reshape(p, p), norm=Normalize(0, 1))
            axes.set_title(f"head {head} to $x_{digit}$", fontsize=7)
            axes.label_outer()
    figure.colorbar(image, ax=panels, location="bottom", label="attention from ŷ", aspect=40)
    return figure
