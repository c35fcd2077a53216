"""The figures of neurons, of attention and of activity through training, of planted contents."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from miiii_search.analysis.activity import FrequencyActivity
from miiii_search.analysis.figures.activity import frequencies_through_training
from miiii_search.analysis.figures.attention import attention_grids
from miiii_search.analysis.figures.neurons import neuron_frequencies, neuron_grids
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.neurons import analyze_neurons
from miiii_search.experiment.spec import Experiment
from tests.analysis.figures.synthetic import make_findings

BASE = make_findings(Experiment(p=41), d_model=8)


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def wave(k: int, x: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.cos(2 * np.pi * k * x / 41)


def planted() -> tuple[Findings, NDArray[np.float64]]:
    """Six neurons; the fifth varies most, then the second, then the first; the last does not at all."""
    x0, x1 = np.meshgrid(np.arange(41), np.arange(41), indexing="ij")
    grids = np.stack(
        [
            2 * wave(3, x0),
            3 * wave(7, x0) + np.sqrt(3) * wave(9, x1),  # three quarters and one
            wave(5, x0) * wave(5, x1),
            wave(5, x0) * wave(5, x1),
            8 * wave(4, x0) * wave(6, x1),
            np.zeros((41, 41)),
        ]
    )
    assert BASE.network is not None
    flat = 10 + grids.reshape(6, -1)
    activations = replace(BASE.network.activations, neurons=flat)
    network = replace(BASE.network, activations=activations, neurons=analyze_neurons(flat, 41))
    return replace(BASE, network=network), 10 + grids


def dots(axes: Axes) -> dict[tuple[int, int], float]:
    """Area by (k of x0, k of x1)."""
    (points,) = [artist for artist in axes.collections if isinstance(artist, PathCollection)]
    places: Any = points.get_offsets()
    return {(int(y), int(x)): float(size) for (x, y), size in zip(places, points.get_sizes(), strict=True)}


def test_the_most_active_neurons_over_the_grid() -> None:
    findings, grids = planted()
    panels = drawn(neuron_grids(findings)).axes
    above, below = panels[:3], panels[3:6]
    for axes, neuron in zip(above, (4, 1, 0), strict=True):
        assert axes.get_title() == f"neuron {neuron}"
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), grids[neuron, :37, :37])
    assert len({axes.images[0].get_clim() for axes in above}) == 1, "one scale"
    assert [axes.get_title() for axes in below[:2]] == ["$k$ = 4, 6: 100%", "$k$ = 7, 9: 100%"]
    assert (above[0].get_xlabel(), above[0].get_ylabel()) == ("$x_1$", "$x_0$")
    assert (below[0].get_xlabel(), below[0].get_ylabel()) == ("$k$ of $x_1$", "$k$ of $x_0$")


def test_the_power_of_neurons() -> None:
    findings, _ = planted()
    _, _, _, product, both, one, *_ = drawn(neuron_grids(findings)).axes
    assert dots(product).keys() == {(4, 6)}
    assert dots(one).keys() == {(3, 0)}
    assert dots(product)[4, 6] == pytest.approx(dots(one)[3, 0]), "all of the variance has one area"
    assert dots(both).keys() == {(7, 0), (0, 9)}
    assert dots(both)[7, 0] == pytest.approx(3 * dots(both)[0, 9])
    assert dots(both)[7, 0] == pytest.approx(0.75 * dots(one)[3, 0])


def test_dominant_frequencies_of_all_neurons() -> None:
    findings, _ = planted()
    scatter, histogram = drawn(neuron_frequencies(findings)).axes
    assert scatter.get_title() == "5 neurons,\nlargest dot: 2"
    found = dots(scatter)
    assert {(7, 9), (5, 5), (4, 6)} <= found.keys()
    assert found[5, 5] == pytest.approx(2 * found[4, 6])
    low, high = scatter.get_ylim()
    assert low > high, "k of x0 downwards, as on the grid"
    pairs, single = [artist for artist in histogram.patches if isinstance(artist, Polygon)]
    assert (pairs.get_label(), single.get_label()) == ("$k$ of $x_0$, $k$ of $x_1$", "one $k$ for both")
    # By pairs all five are explained. By one frequency those are whose digits share it, and ¾ of the second.
    assert heights(pairs) == {19: 5}
    assert heights(single) == {0: 1, 14: 1, 19: 3} or heights(single) == {0: 1, 15: 1, 19: 3}
    assert (histogram.get_xlabel(), histogram.get_ylabel()) == ("share of variance", "number of neurons")


def heights(outline: Polygon) -> dict[int, int]:
    """Bin → number, of a histogram's outline."""
    tops = {
        round(20 * float(left)): int(y)
        for (left, y), (right, y2) in pairwise(np.asarray(outline.get_xy()))
        if y == y2 and right > left
    }
    return {at: top for at, top in tops.items() if top}


def test_dead_neurons_are_not_shown() -> None:
    findings, grids = planted()
    assert findings.network is not None
    flat = grids.reshape(6, -1)[[0, 5]]
    one = replace(
        findings.network,
        activations=replace(findings.network.activations, neurons=flat),
        neurons=analyze_neurons(flat, 41),
    )
    panels = drawn(neuron_grids(replace(findings, network=one))).axes
    assert [axes.get_title() for axes in panels if axes.images] == ["neuron 0"]


def test_attention_of_each_head_to_each_digit() -> None:
    assert BASE.network is not None
    figure = drawn(attention_grids(BASE))
    panels = {axes.get_title(): axes for axes in figure.axes if axes.images}
    assert len(panels) == 8
    attention = BASE.network.activations.attention
    for head in range(4):
        for digit in (0, 1):
            (image,) = panels[f"head {head} to $x_{digit}$"].images
            found = np.asarray(image.get_array())
            for x0, x1 in ((0, 0), (3, 40), (40, 2)):
                assert found[x0, x1] == attention[head, digit, x0 * 41 + x1]
            assert image.get_clim() == (0, 1)
    assert figure.axes[-1].get_xlabel() == "attention from ŷ"


@pytest.mark.parametrize(("n_heads", "rows"), [(1, 2), (2, 2), (8, 4)])
def test_any_number_of_heads(n_heads: int, rows: int) -> None:
    figure = drawn(attention_grids(make_findings(Experiment(p=7), n_heads=n_heads)))
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 2 * n_heads
    figure.draw_without_rendering()
    assert len({round(axes.get_position().y0, 3) for axes in panels}) == rows


def test_frequencies_through_training() -> None:
    rng = np.random.default_rng(0)
    values = 0.01 * rng.random((5, 2, 20))
    values[3, 0, [4, 9]] = values[4, 1, 6] = 1  # frequencies 5 and 10 of x0 at 4,096, 7 of x1 at 8,192
    epochs = np.asarray([256, 512, 1024, 4096, 8192])
    figure = drawn(frequencies_through_training(replace(BASE, activity=FrequencyActivity(epochs, values))))
    of_x0, of_x1, lines, _ = figure.axes
    for digit, axes in enumerate((of_x0, of_x1)):
        (mesh,) = [artist for artist in axes.collections if isinstance(artist, QuadMesh)]
        np.testing.assert_allclose(np.asarray(mesh.get_array()), values[:, digit].T)
        assert mesh.get_clim() == (0, 1)
        assert axes.get_ylim() == (0.5, 20.5), "frequency 1 is centred on 1"
        assert axes.get_ylabel() == f"frequency $k$ of $x_{digit}$"
        edges = np.asarray(mesh.get_coordinates())[0, :, 0]
        np.testing.assert_allclose(edges[1:-1], np.sqrt(epochs[:-1] * epochs[1:]))
    counts = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in lines.lines}
    assert counts == {"of $x_0$": [0, 0, 0, 2, 0], "of $x_1$": [0, 0, 0, 0, 1]}
    assert "\\mu + 2\\sigma" in lines.get_ylabel()
    assert (lines.get_xscale(), lines.get_xlabel()) == ("log", "epoch")


def test_one_look_is_enough() -> None:
    activity = FrequencyActivity(np.asarray([256]), np.full((1, 2, 20), 0.05))
    assert frequencies_through_training(replace(BASE, activity=activity)) is not None
