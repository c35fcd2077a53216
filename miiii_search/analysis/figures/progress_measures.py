"""Progress measures of Nanda et al. through training."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.progress_measures import ProgressMeasures

CURVES = (
    ("train", "train", "o", "-"),
    ("held_out", "held out", "s", "-"),
    ("restricted", "restricted", "^", "--"),
    ("excluded", "excluded", "v", "--"),
)
"""Field of `ProgressMeasures`, label, marker and line style of each curve."""


def progress_measures(findings: Findings) -> Figure | None:
    """Draw the four losses at every snapshot.

    The restricted loss falls as the general solution forms. The excluded loss rises as the network loses what it
    memorised. Returns None for other tasks than `nanda`, or if there are no snapshots.
    """
    if len(findings.progress) < 2:
        return None
    figure = style.new_figure(style.COLUMN_WIDTH, 2.5)
    axes = figure.subplots()
    epochs = [measures.epoch for measures in findings.progress]
    for (name, label, marker, line), colour in zip(CURVES, style.OKABE_ITO, strict=False):
        loss = np.asarray([_drawable(measures, name) for measures in findings.progress])
        axes.plot(epochs, loss, color=colour, marker=marker, markersize=3.5, linestyle=line, label=label)
    axes.set_yscale("log")
    style.set_log_epoch_axis(axes)
    axes.set_ylabel("loss (nats)")
    figure.legend(loc="outside upper center", ncols=4, handlelength=2.2, columnspacing=1.2)
    return figure


def _drawable(measures: ProgressMeasures, name: str) -> float:
    """Return a loss, or NaN, which leaves a gap, if it cannot be drawn on a logarithmic axis."""
    loss = float(getattr(measures, name))
    return loss if 0 < loss < np.inf else np.nan
