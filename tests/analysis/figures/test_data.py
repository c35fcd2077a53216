"""The figures of the tasks, against brute force."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from miiii_search.analysis.figures.data import dft_matrix, input_grid, label_grids, number_spirals
from miiii_search.experiment.spec import Experiment


def images(figure: Figure) -> list[NDArray[np.float64]]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, n))


def test_spirals_of_the_paper() -> None:
    figure = number_spirals(113)
    assert [axes.get_title().split() for axes in figure.axes] == [
        ["multiples", "of", "17", "and", "of", "23"],
        ["multiples", "of", "11"],
        ["primes"],
    ]
    drawn = [[line.get_ydata() for line in axes.lines] for axes in figure.axes]
    assert [[len(np.asarray(numbers)) for numbers in panel] for panel in drawn] == [[752, 556], [1161], [1523]]


def test_spirals_by_angle_and_radius() -> None:
    figure = number_spirals(13)
    left, middle, right = figure.axes
    wanted: list[list[list[int]]] = [
        [[n for n in range(169) if n % q == 0] for q in (2, 3)],
        [list(range(0, 169, 11))],
        [[n for n in range(169) if is_prime(n)]],
    ]
    for axes, panel in zip((left, middle, right), wanted, strict=True):
        assert axes.name == "polar"
        for line, n in zip(axes.lines, panel, strict=True):
            assert list(np.asarray(line.get_ydata())) == n
            np.testing.assert_allclose(np.asarray(line.get_xdata()), np.mod(n, 2 * np.pi))


def test_input_grid_of_the_paper() -> None:
    x0, x1, n = images(input_grid(11))
    for a in range(11):
        for b in range(11):
            assert (x0[a, b], x1[a, b], n[a, b]) == (a, b, a + 11 * b)
    assert n[-1, -1] == 120


@pytest.mark.parametrize("task", ["miiii", "masked"])
def test_labels_at_113(task: str) -> None:
    figure = label_grids(Experiment.model_validate({"task": task}))
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["q = 2", "q = 11", "q = 109"]
    for q, image in zip((2, 11, 109), images(figure), strict=True):
        assert image.tolist() == [[(a + 113 * b) % q for b in range(37)] for a in range(37)]


def test_labels_of_few_tasks_and_of_one() -> None:
    figure = label_grids(Experiment(p=11))
    for q, image in zip((2, 3, 5, 7), images(figure), strict=True):
        assert image.tolist() == [[(a + 11 * b) % q for b in range(11)] for a in range(11)]
    figure = label_grids(Experiment(p=31, task="nanda"))
    (image,) = images(figure)
    assert image.tolist() == [[(a + b) % 31 for b in range(31)] for a in range(31)]
    assert figure.axes[0].images[0].get_clim() == (0, 30)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("$x_1$", "$x_0$")


def test_labels_of_basis_are_shuffled() -> None:
    for of_miiii, of_basis in zip(
        *(images(label_grids(Experiment.model_validate({"p": 31, "task": t}))) for t in ("miiii", "basis")), strict=True
    ):
        assert (of_miiii != of_basis).mean() > 0.4
        assert (np.bincount(of_miiii.ravel()) == np.bincount(of_basis.ravel())).all()


def test_dft_matrix() -> None:
    figure = dft_matrix(13)
    transform = np.fft.fft(np.eye(13))
    real, imaginary = images(figure)
    np.testing.assert_allclose(real, transform.real, atol=1e-12)
    np.testing.assert_allclose(imaginary, transform.imag, atol=1e-12)
    assert figure.axes[0].images[0].get_clim() == (-1, 1)
