"""Axes on which each row is a task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from miiii_search.experiment.spec import Experiment

LABELLED_ROW_HEIGHT = 0.1
"""Smallest height of a row whose label can be read, in inches."""

MIN_HEIGHT = 0.8
"""Smallest height of the axes in inches, so that there is room for the axis label."""


def label_task_rows(axes: Axes, experiment: Experiment, moduli: Sequence[int], row_height: float) -> None:
    """Label rows with the moduli of their tasks, skipping labels where rows are too low.

    Labels of tasks that the loss excludes are grey.

    Args:
        axes: The axes, with rows at 0, 1, 2, …
        experiment: The experiment, which knows which tasks are scored.
        moduli: The modulus of each row.
        row_height: Height of a row in inches.
    """
    step = int(np.ceil(LABELLED_ROW_HEIGHT / row_height - 1e-9))
    shown = range(0, len(moduli), step)
    axes.set_yticks(list(shown), [str(moduli[row]) for row in shown], fontsize=6)
    axes.tick_params(axis="y", length=2)
    scored = dict(zip(experiment.task_moduli, experiment.scored, strict=True))
    for row, label in zip(shown, axes.get_yticklabels(), strict=True):
        label.set_color("black" if scored[moduli[row]] else "0.55")
    axes.set_ylabel("task q" if all(experiment.scored) else "task q\n(grey: masked)")
