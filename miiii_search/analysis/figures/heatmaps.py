"""Two kinds of pictures that recur: a function on the grid of both digits, and rows that change through training."""

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
"""Of a larger grid only so many of each digit are shown, as in Fig. 15: at three to a column, more would blur."""

MAX_COLUMNS = 480
"""Evaluations that are closer than this share of the axis are drawn as their mean: about as fine as the print."""

MISSING_COLOUR = "0.8"
"""Grey: what was not measured, or is not finite."""


def draw_grid(axes: Axes, values: NDArray[Any], **look: Any) -> AxesImage:
    """Values `[x0, x1]` as an image, x0 downwards, with both axes named; `look` goes to `imshow`."""
    image = axes.imshow(values, **look)
    axes.spines[["top", "right"]].set_visible(True)
    last = len(values) - 1
    axes.set_xticks([0, last])
    axes.set_yticks([0, last])
    label_grid_axes(axes, "$x_1$", "$x_0$")
    return image


def label_grid_axes(axes: Axes, x: str, y: str) -> None:
    """The names of the axes of a grid, between the numbers at their ends."""
    axes.set_xlabel(x, labelpad=-6)
    axes.set_ylabel(y, labelpad=-6)


def crop(values: NDArray[Any]) -> NDArray[Any]:
    """The first `CROPPED_DIGITS` of both digits."""
    return values[..., :CROPPED_DIGITS, :CROPPED_DIGITS]


def draw_over_epochs(
    axes: Axes, epochs: NDArray[Any], values: NDArray[Any], norm: Normalize, first: float = 0, cmap: str = SEQUENTIAL
) -> QuadMesh:
    """Values `[evaluations, rows]` as a heat map over a logarithmic axis of epochs.

    The rows are centred on `first`, `first` + 1, …. A column reaches half way, on the logarithmic axis, to the
    evaluations beside it.
    """
    starts, edges = merge_into_columns(epochs)
    counts = np.diff([*starts, len(epochs)])[:, None]
    with np.errstate(invalid="ignore"):  # infinity less infinity, of a run that failed
        means = np.add.reduceat(values.astype(np.float64), starts, axis=0) / counts
    rows = first - 0.5 + np.arange(values.shape[1] + 1)
    axes.set_facecolor(MISSING_COLOUR)
    set_log_epoch_axis(axes)
    image = np.ma.masked_invalid(means.T)
    return axes.pcolormesh(edges, rows, image, norm=norm, cmap=cmap, rasterized=True)


def merge_into_columns(epochs: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Where each column of evaluations begins, and the edges of the columns in epochs, one more than columns."""
    at = np.log2(epochs.astype(np.float64))
    width = (at[-1] - at[0]) / MAX_COLUMNS
    cells = np.floor((at - at[0]) / width) if width else np.zeros(len(at))
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    ends = np.append(starts[1:], len(at)) - 1
    inner = (at[ends[:-1]] + at[starts[1:]]) / 2
    outer = inner if len(inner) else np.asarray([at[0] + 0.5, at[0] - 0.5])
    edges = [2 * at[0] - outer[0], *inner, 2 * at[-1] - outer[-1]]
    return starts, np.exp2(np.asarray(edges))
