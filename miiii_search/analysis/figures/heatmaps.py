"""Two kinds of heat maps: functions of both digits, and values that change through training."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from miiii_search.analysis.figures.style import SEQUENTIAL, set_log_epoch_axis

CROPPED_DIGITS = 37
"""Number of values of each digit that a cropped grid shows, as in Fig. 15. A whole grid would blur in a column."""

MAX_COLUMNS = 480
"""Number of columns of a heat map over epochs, about as many as print can resolve. Closer evaluations are averaged."""

MISSING_COLOUR = "0.8"
"""Grey of values that were not measured or are not finite."""


def draw_grid(axes: Axes, values: NDArray[Any], **options: Any) -> AxesImage:
    """Draw values `[x0, x1]` as an image, with x0 downwards and both axes labelled.

    Args:
        axes: The axes.
        values: The values.
        **options: Passed on to `Axes.imshow`.
    """
    image = axes.imshow(values, **options)
    axes.spines[["top", "right"]].set_visible(True)
    last = len(values) - 1
    axes.set_xticks([0, last])
    axes.set_yticks([0, last])
    label_grid_axes(axes, "$x_1$", "$x_0$")
    return image


def label_grid_axes(axes: Axes, x: str, y: str) -> None:
    """Label the axes of a grid, between the numbers at their ends."""
    axes.set_xlabel(x, labelpad=-6)
    axes.set_ylabel(y, labelpad=-6)


def crop(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values for the first `CROPPED_DIGITS` values of both digits."""
    return values[..., :CROPPED_DIGITS, :CROPPED_DIGITS]


def draw_over_epochs(
    axes: Axes,
    epochs: NDArray[Any],
    values: NDArray[Any],
    norm: Normalize,
    *,
    first_row: float = 0,
    colormap: str = SEQUENTIAL,
) -> QuadMesh:
    """Draw values as a heat map over a logarithmic axis of epochs.

    Args:
        axes: The axes.
        epochs: Epochs of the evaluations, ascending `[evaluations]`.
        values: The values `[evaluations, rows]`.
        norm: Maps values to colours.
        first_row: Position of the first row's centre on the y axis. The next rows follow at distance 1.
        colormap: Name of the colour map.

    Returns:
        The heat map, for a colour bar.
    """
    starts, edges = merge_into_columns(epochs)
    counts = np.diff([*starts, len(epochs)])[:, None]
    with np.errstate(invalid="ignore"):  # infinity minus infinity, in the record of a run that failed
        means = np.add.reduceat(values.astype(np.float64), starts, axis=0) / counts
    rows = first_row - 0.5 + np.arange(values.shape[1] + 1)
    axes.set_facecolor(MISSING_COLOUR)
    set_log_epoch_axis(axes)
    image = np.ma.masked_invalid(means.T)
    return axes.pcolormesh(edges, rows, image, norm=norm, cmap=colormap, rasterized=True)


def merge_into_columns(epochs: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Assign evaluations to the columns of a heat map with a logarithmic epoch axis.

    Args:
        epochs: Epochs of the evaluations, ascending `[evaluations]`.

    Returns:
        The index of each column's first evaluation `[columns]`, and the columns' edges in epochs `[columns + 1]`.
        An edge lies half way, on the logarithmic axis, between the neighbouring evaluations.
    """
    position = np.log2(epochs.astype(np.float64))
    width = (position[-1] - position[0]) / MAX_COLUMNS
    cells = np.floor((position - position[0]) / width) if width else np.zeros(len(position))
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    ends = np.append(starts[1:], len(position)) - 1
    inner = (position[ends[:-1]] + position[starts[1:]]) / 2
    outer = inner if len(inner) else np.asarray([position[0] + 0.5, position[0] - 0.5])
    edges = [2 * position[0] - outer[0], *inner, 2 * position[-1] - outer[-1]]
    return starts, np.exp2(np.asarray(edges))
