"""Figures of the embeddings, for tables with planted contents."""

from typing import Any

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure
from numpy.typing import NDArray

from miiii_search.analysis.figures.embeddings import (
    fourier_embedding,
    frequency_norms,
    positions,
    singular_values,
    singular_vectors,
)
from miiii_search.analysis.findings import Findings
from miiii_search.experiment.spec import Experiment
from tests.analysis.figures.synthetic import make_findings, with_weights

P, D = 31, 16
BASE = make_findings(Experiment(p=P, task="nanda"), d_model=D)
X = np.arange(P)


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def planted(frequencies: dict[int, float], noise: float = 0.01) -> Findings:
    """A table with cos of each frequency in one dimension and sin in the next, and a little noise."""
    table = noise * np.random.default_rng(0).normal(size=(P + 1, D))
    for i, (k, size) in enumerate(frequencies.items()):
        table[:-1, 2 * i] += size * np.cos(2 * np.pi * k * X / P)
        table[:-1, 2 * i + 1] += size * np.sin(2 * np.pi * k * X / P)
    return with_weights(BASE, token_embedding=table.astype(np.float32))


def numbers(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def test_positions() -> None:
    assert BASE.run.weights is not None
    table = BASE.run.weights["position_embedding"]
    strips, scatter, bar = drawn(positions(BASE)).axes
    (image,) = strips.images
    np.testing.assert_allclose(numbers(image.get_array()), table[:2])
    low, high = image.get_clim()
    assert low == -high == pytest.approx(-np.abs(table[:2]).max())
    assert [label.get_text() for label in strips.get_yticklabels()] == ["$x_0$", "$x_1$"]
    (points,) = [line for line in scatter.lines if line.get_marker() == "."]
    np.testing.assert_allclose(numbers(points.get_xdata()), table[0])
    np.testing.assert_allclose(numbers(points.get_ydata()), table[1])
    r = scipy.stats.pearsonr(table[0], table[1]).statistic
    assert scatter.get_title().replace("−", "-") == f"r = {r:.2f}"
    assert bar.get_xlabel() == "position embedding"


def test_opposite_positions() -> None:
    assert BASE.run.weights is not None
    table = BASE.run.weights["position_embedding"].copy()
    table[1] = -table[0]
    _, scatter, _ = drawn(positions(with_weights(BASE, position_embedding=table))).axes
    assert scatter.get_title() == "r = −1.00"


def test_singular_values_and_their_marks() -> None:
    findings = planted({5: 1, 11: 0.5}, noise=0)
    figure = drawn(singular_values(findings))
    (axes,) = figure.axes
    curve, half, most = axes.lines
    # A cos or sin of size s over p points has the norm s·√(p/2).
    wanted = np.sqrt(P / 2) * np.asarray([1, 1, 0.5, 0.5])
    np.testing.assert_allclose(numbers(curve.get_ydata())[:4], wanted, rtol=1e-5)
    np.testing.assert_allclose(numbers(curve.get_ydata())[4:], 0, atol=1e-5)
    assert numbers(curve.get_xdata()).tolist() == list(range(1, D + 1))
    # Squares 1, 1, ¼, ¼ of 2.5: 50 % needs two, 90 % three.
    assert [numbers(line.get_xdata())[0] for line in (half, most)] == [2, 3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "50% of the variance: 2",
        "90% of the variance: 3",
    ]


def test_singular_vectors_up_to_half_of_the_variance() -> None:
    findings = planted({5: 1, 11: 0.5})
    panels = drawn(singular_vectors(findings)).axes
    assert len(panels) == 2
    for axes in panels:
        curve = numbers(axes.lines[-1].get_ydata())
        spectrum = np.abs(np.fft.rfft(curve))
        assert spectrum.argmax() == 5 and axes.get_title(loc="right") == "k = 5, 100%"
    assert panels[0].get_title(loc="left") == "2 of 2 that hold 50 %"
    assert panels[-1].get_xlabel() == "digit"


def test_no_more_than_eight_singular_vectors() -> None:
    noise = np.random.default_rng(0).normal(size=(P + 1, 128)).astype(np.float32)
    findings = with_weights(make_findings(Experiment(p=P, task="nanda"), d_model=128), token_embedding=noise)
    panels = drawn(singular_vectors(findings)).axes
    values = np.linalg.svd(noise[:-1].astype(np.float64), compute_uv=False)
    half = int((np.cumsum(values**2) < 0.5 * (values**2).sum()).sum()) + 1
    assert half > len(panels) == 8
    assert panels[0].get_title(loc="left") == f"8 of {half} that hold 50 %"


def test_fourier_basis() -> None:
    axes, bar = drawn(fourier_embedding(planted({5: 1, 11: 0.5}, noise=0))).axes
    (image,) = axes.images
    found = numbers(image.get_array())
    wanted = np.zeros((P, D))
    # cos of frequency k is row 2k − 1 and sin row 2k.
    wanted[9, 0] = wanted[10, 1] = np.sqrt(P / 2)
    wanted[21, 2] = wanted[22, 3] = 0.5 * np.sqrt(P / 2)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # Both rows of a frequency lie around its number on the axis.
    left, right, bottom, top = image.get_extent()
    height = (bottom - top) / P
    assert (top, right - left) == (0, D)
    assert 11 * height == pytest.approx(5.5) and 9 * height == pytest.approx(4.5)
    low, high = image.get_clim()
    assert low == -high == pytest.approx(-np.sqrt(P / 2), rel=1e-5)
    assert (axes.get_xlabel(), bar.get_ylabel()) == ("dimension", "coefficient")


def test_norms_of_frequencies() -> None:
    findings = planted({5: 1, 11: 0.5, 3: 0.25})
    assert findings.network is not None
    (axes,) = drawn(frequency_norms(findings)).axes
    table = findings.network.weights["token_embedding"][:-1].astype(np.float64)
    wanted = np.sqrt(2 / P * (np.abs(np.fft.rfft(table, axis=0)[1:]) ** 2).sum(axis=1))
    heights = [bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")]
    np.testing.assert_allclose(heights, wanted)
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert {k for k in range(1, 16) if colours[k - 1] != colours[0]} == {3, 5, 11}
    assert [text.get_text() for text in axes.texts] == ["5", "11", "3"], "strongest first"
    (threshold,) = axes.lines
    level = numbers(threshold.get_ydata())[0]
    quiet = [h for k, h in enumerate(heights, 1) if k not in (3, 5, 11)]
    assert max(quiet) < level < 0.25 * np.sqrt(P)
    assert axes.get_title(loc="left") == "3 of 15 above the threshold"


def test_noise_has_no_frequency() -> None:
    (axes,) = drawn(frequency_norms(planted({}))).axes
    assert axes.get_title(loc="left") == "0 of 15 above the threshold" and not axes.texts


def test_numbers_of_frequencies_do_not_lie_over_one_another() -> None:
    rng, x = np.random.default_rng(0), np.arange(113)
    table = 0.01 * rng.normal(size=(114, D))
    for i, (k, size) in enumerate({20: 1.0, 21: 0.9, 18: 0.8, 40: 0.7}.items()):
        table[:-1, i] += size * np.cos(2 * np.pi * k * x / 113)
    findings = with_weights(make_findings(Experiment(), d_model=D), token_embedding=table.astype(np.float32))
    (axes,) = drawn(frequency_norms(findings)).axes
    assert axes.get_title(loc="left") == "4 of 56 above the threshold"
    assert [text.get_text() for text in axes.texts] == ["20", "40"]
