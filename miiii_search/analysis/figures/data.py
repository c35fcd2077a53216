"""Figures of the data and the tasks, which need no training (Fig. 2, 3, 4, 22)."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from miiii_search.analysis import fourier
from miiii_search.analysis.figures.heatmaps import crop, draw_grid
from miiii_search.analysis.figures.style import COLUMN_WIDTH, DIVERGING, OKABE_ITO, new_figure
from miiii_search.analysis.scores import grid_labels
from miiii_search.experiment.primes import primes_below
from miiii_search.experiment.spec import Experiment

PAPER_PAIR, PAPER_SINGLE = (17, 23), 11
"""Primes whose multiples Fig. 2 shows, at p = 113: a pair in the left panel and one in the middle panel."""

MAX_ALL_TASKS = 4
"""Number of tasks up to which all label grids are shown. Otherwise three of them are."""


def number_spirals(p: int) -> Figure:
    """Draw natural numbers below p² in polar coordinates, with radius n and angle n mod 2π (Fig. 2).

    The panels show the multiples of two primes, the multiples of one prime, and the primes.
    """
    n = np.arange(p * p)
    two = spiral_primes(p)
    one = PAPER_SINGLE if p > PAPER_SINGLE else 2
    primes = np.asarray(primes_below(p * p))
    panels: list[tuple[str, list[NDArray[np.intp]]]] = [
        (f"multiples of {two[0]}\nand of {two[1]}", [n[n % q == 0] for q in two]),
        (f"multiples\nof {one}", [n[n % one == 0]]),
        ("primes\n", [primes]),
    ]
    figure = new_figure(COLUMN_WIDTH, 1.5)
    for column, (title, numbers) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 3, column, projection="polar")
        for of, colour in zip(numbers, OKABE_ITO, strict=False):
            size = np.clip(40 / np.sqrt(len(of)), 1.2, 4)
            axes.plot(of % (2 * np.pi), of, ".", markersize=size, markeredgewidth=0, color=colour, rasterized=True)
        axes.set(title=title, ylim=(0, p * p), xticks=[], yticks=[])
        axes.spines["polar"].set_visible(False)
    return figure


def spiral_primes(p: int) -> tuple[int, int]:
    """Return the two primes of the left panel of Fig. 2: those of the paper if p = 113, else those nearest to p / 6."""
    if p == 113:
        return PAPER_PAIR
    first, second = sorted(sorted(primes_below(p), key=lambda q: abs(q - p / 6))[:2])
    return first, second


def input_grid(p: int) -> Figure:
    """Draw both digits of every sample, and the number n = x0 + x1·p that they represent (Fig. 3)."""
    x0, x1 = np.meshgrid(np.arange(p), np.arange(p), indexing="ij")
    figure = new_figure(COLUMN_WIDTH, 1.75)
    panels = [("first digit $x_0$", x0), ("second digit $x_1$", x1), ("number $n$", x0 + x1 * p)]
    for axes, (title, values) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        image = draw_grid(axes, values)
        axes.set_title(title)
        axes.label_outer()
        figure.colorbar(image, ax=axes, orientation="horizontal", ticks=[0, int(values.max())])
    return figure


def label_grids(experiment: Experiment) -> Figure:
    """Draw the labels of some tasks over the first values of both digits (Fig. 4)."""
    chosen = shown_tasks(experiment)
    grids = crop(grid_labels(experiment))
    figure = new_figure(COLUMN_WIDTH, 1.75) if len(chosen) > 1 else new_figure(COLUMN_WIDTH * 0.6, 2.2)
    for axes, task in zip(figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0], chosen, strict=True):
        last = experiment.classes[task] - 1
        image = draw_grid(axes, grids[task], norm=Normalize(0, last))
        axes.set_title(f"q = {experiment.task_moduli[task]}")
        axes.label_outer()
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", ticks=[0, last])
        bar.set_label("class", labelpad=-6)
    return figure


def shown_tasks(experiment: Experiment) -> list[int]:
    """Return the indices of the tasks to show.

    They are all tasks if there are few, else the smallest modulus, the one nearest to √p, and the largest.
    """
    moduli = experiment.task_moduli
    if len(moduli) <= MAX_ALL_TASKS:
        return list(range(len(moduli)))
    middle = int(np.argmin(np.abs(np.asarray(moduli[1:-1]) - np.sqrt(experiment.p)))) + 1
    return [0, middle, len(moduli) - 1]


def dft_matrix(p: int) -> Figure:
    """Draw the real and imaginary part of the discrete Fourier transform as a matrix (Fig. 22)."""
    matrix = fourier.dft_matrix(p)
    figure = new_figure(COLUMN_WIDTH, 1.85)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, part in zip(panels, ("real part", "imaginary part"), (matrix.real, matrix.imag), strict=True):
        image = axes.imshow(part, cmap=DIVERGING, norm=Normalize(-1, 1), interpolation="nearest")
        axes.set(title=title, xlabel="digit $x$", ylabel="frequency $k$")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.label_outer()
    figure.colorbar(image, ax=panels, ticks=[-1, 0, 1], shrink=0.8)
    return figure
