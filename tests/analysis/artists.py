"""Contents of a figure's panels as plain arrays."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

Array = NDArray[Any]


def bars(axes: Axes) -> list[float]:
    """Return the heights of bars, from left to right."""
    found = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [bar.get_height() for bar in sorted(found, key=Rectangle.get_x)]


def image(axes: Axes) -> Array:
    """Return the values of the only image, NaN where there are none."""
    [only] = axes.images
    return filled(only.get_array())


def dots(axes: Axes) -> Array:
    """Return the positions of the dots of the only scatter plot `[dots, 2]`."""
    [only] = [artist for artist in axes.collections if isinstance(artist, PathCollection)]
    return np.asarray(only.get_offsets(), np.float64)


def mesh(axes: Axes) -> tuple[Array, Array]:
    """Return the values of the only mesh, and its edges along x."""
    [only] = [artist for artist in axes.collections if isinstance(artist, QuadMesh)]
    coordinates: Any = only.get_coordinates()
    return filled(only.get_array()), np.asarray(coordinates)[0, :, 0]


def points(line: Line2D) -> tuple[Array, Array]:
    """X and y of a line."""
    return np.asarray(line.get_xdata(), np.float64), np.asarray(line.get_ydata(), np.float64)


def filled(values: Any) -> Array:
    return np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)
