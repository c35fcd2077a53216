"""Frequencies that the neurons use, through training (Fig. 17, 21)."""

from __future__ import annotations

from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from miiii_search.analysis.activity import SIGMAS
from miiii_search.analysis.figures.heatmaps import draw_over_epochs
from miiii_search.analysis.figures.style import COLUMN_WIDTH, OKABE_ITO, new_figure, set_log_epoch_axis
from miiii_search.analysis.findings import Findings

DIGITS = ("$x_0$", "$x_1$")


def frequencies_through_training(findings: Findings) -> Figure | None:
    """Draw the mean activation of both digits' frequencies, and below it the number of active ones."""
    activity = findings.activity
    if activity is None:
        return None
    figure = new_figure(COLUMN_WIDTH, 4.2)
    *heat_maps, lines = figure.subplots(3, 1, sharex=True, height_ratios=[1.3, 1.3, 1])
    scale = Normalize(0, float(activity.activation.max()))
    for axes, digit_activation, digit in zip(heat_maps, activity.activation.swapaxes(0, 1), DIGITS, strict=True):
        image = draw_over_epochs(axes, activity.epochs, digit_activation, scale, first_row=1)
        axes.set_ylabel(f"frequency $k$ of {digit}")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.colorbar(image, ax=heat_maps, location="top", label="mean frequency activation", aspect=40)
    # The lines are often equal, so the second must not hide the first.
    styles = ({"marker": "o", "markersize": 5, "linewidth": 2.2}, {"marker": "s", "markersize": 2.5})
    for counts, digit, colour, line_style in zip(
        activity.counts().T, DIGITS, (OKABE_ITO[5], OKABE_ITO[1]), styles, strict=True
    ):
        lines.plot(activity.epochs, counts, color=colour, label=f"of {digit}", **line_style)
    set_log_epoch_axis(lines)
    lines.set_ylabel(f"active frequencies\n($\\omega > \\mu + {SIGMAS:.0f}\\sigma$)")
    most = max(int(activity.counts().max()), 1)
    lines.set_ylim(-0.08 * most, 1.1 * most)
    lines.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    lines.legend(loc="best")
    for axes in heat_maps:
        axes.label_outer()
    return figure
