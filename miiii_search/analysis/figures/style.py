"""The common style of all figures: sizes, fonts, colours and file formats.

The user's matplotlib settings have no effect on it.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

COLUMN_WIDTH, PAGE_WIDTH = 3.4, 7.0
"""Widths of a column and of a page of a paper, in inches. Text of 8 points stays readable at this size."""

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
"""Colour maps that are safe for colour-blind readers."""

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours for unordered categories (Okabe and Ito, 2008), without yellow, which is too faint on white."""

SETTINGS: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.0,
    "image.cmap": SEQUENTIAL,
    "svg.fonttype": "none",
    "svg.hashsalt": "miiii-search",
}
"""matplotlib settings of all figures, on top of matplotlib's defaults."""


_lock = threading.RLock()
"""Held while matplotlib's settings are changed, since they belong to the whole process."""

_DEFAULTS: dict[Any, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}


@contextmanager
def default_style(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Use matplotlib's defaults with some changes within the block. One thread at a time can be in such a block."""
    with _lock, warnings.catch_warnings(), mpl.rc_context():
        # A study's name may be in a script that no installed font covers.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        mpl.rcParams.update(_DEFAULTS | dict(changes or {}))
        yield


@contextmanager
def figure_style() -> Iterator[None]:
    """Use the common style within the block. Every figure is drawn and saved within such a block."""
    with default_style(SETTINGS):
        yield


def escape_text(text: str) -> str:
    """Return text, such as a study's name, so that matplotlib shows it literally.

    matplotlib reads text between dollar signs as mathematics, fails at some invisible characters, and leaves labels
    that begin with an underscore out of legends.
    """
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return ("\N{HAIR SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def format_signed(value: float, digits: int = 2) -> str:
    """Return a number with a proper minus sign, and no sign if it rounds to zero."""
    return f"{value:z.{digits}f}".replace("-", "−")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches. It does not use pyplot, whose state is global."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as the content of a `png` (220 dots per inch) or `svg` file.

    The same figure gives the same bytes.
    """
    file = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with figure_style():
        figure.savefig(file, format=kind, dpi=220, metadata=metadata)
    return file.getvalue()


def task_colours(moduli: Sequence[int]) -> tuple[list[Any], ScalarMappable]:
    """Return one colour per modulus, by its logarithm, and the mappable for their colour bar."""
    normalize = LogNorm(moduli[0], max(moduli[-1], moduli[0] + 1))
    return [colormaps[SEQUENTIAL](normalize(q)) for q in moduli], ScalarMappable(normalize, colormaps[SEQUENTIAL])


def set_log_epoch_axis(axes: Axes, max_ticks: int = 7) -> None:
    """Make the x axis a logarithmic axis of epochs, with whole numbers at powers of two.

    Args:
        axes: The axes.
        max_ticks: Largest number of ticks. More than seven numbers of five digits would touch in a column.
    """
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=max_ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:,.0f}"))
    axes.set_xlabel("epoch")
