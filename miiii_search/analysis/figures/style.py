"""One look for all figures: sizes, type, colours, how they are saved. The user's matplotlib settings do not matter."""

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
"""Inches: a column and a page of a paper. Type is 8 points and stays readable when printed at this size."""

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
"""Both are safe for the colour-blind."""

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""For things that have no order (Okabe and Ito, 2008); yellow is left out, it is too faint on white."""

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


_lock = threading.RLock()
"""matplotlib's settings are those of the whole process."""

_DEFAULTS: dict[Any, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}


@contextmanager
def default_style(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draws with matplotlib's defaults and some changes, whatever the user's settings are. One thread at a time."""
    with _lock, warnings.catch_warnings(), mpl.rc_context():
        # A name may be in a script that no font here has.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        mpl.rcParams.update(_DEFAULTS | dict(changes or {}))
        yield


@contextmanager
def figure_style() -> Iterator[None]:
    """Draws in the style of all figures. Everything that draws or saves one happens within it."""
    with default_style(SETTINGS):
        yield


def escape_text(text: str) -> str:
    """Returns text, such as a study's name, so that matplotlib shows it as it is.

    Otherwise it takes what stands between dollar signs for mathematics, fails at some characters that nobody sees,
    and leaves labels that begin with an underscore out of legends.
    """
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return ("\N{HAIR SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches. Not through pyplot, whose state is global."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `png` (220 dots an inch) or `svg`; the same bytes for the same figure."""
    file = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with figure_style():
        figure.savefig(file, format=kind, dpi=220, metadata=metadata)
    return file.getvalue()


def task_colours(moduli: Sequence[int]) -> tuple[list[Any], ScalarMappable]:
    """A colour a modulus, by its logarithm, and what a colour bar is made of."""
    normalize = LogNorm(moduli[0], max(moduli[-1], moduli[0] + 1))
    return [colormaps[SEQUENTIAL](normalize(q)) for q in moduli], ScalarMappable(normalize, colormaps[SEQUENTIAL])


def set_log_epoch_axis(axes: Axes) -> None:
    """A logarithmic axis of epochs, with whole numbers at powers of two."""
    axes.set_xscale("log", base=2)
    # Seven, since more numbers of five digits would touch in a column.
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:,.0f}"))
    axes.set_xlabel("epoch")
