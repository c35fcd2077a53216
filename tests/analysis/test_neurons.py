"""Planted neurons, white noise and dead neurons."""

import numpy as np
import pytest
from numpy.typing import NDArray

from miiii_search.analysis.network import forward, grid
from miiii_search.analysis.neurons import BLOCK_SIZE, analyze_neurons
from tests.analysis.networks import adder


def angles(p: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2π x0 / p and 2π x1 / p over the grid."""
    x0, x1 = grid(p).T
    return 2 * np.pi * x0 / p, 2 * np.pi * x1 / p


@pytest.mark.parametrize("p", [7, 31, 113])
def test_planted_neurons(p: int) -> None:
    (u, v), random = angles(p), np.random.default_rng(p)
    frequencies = random.integers(1, (p + 1) // 2, size=(40, 2))
    phases = random.uniform(0, 2 * np.pi, size=(40, 2))
    planted = np.stack(
        [
            np.maximum(np.cos(k * u + a) + np.cos(m * v + b), 0)
            for (k, m), (a, b) in zip(frequencies, phases, strict=True)
        ]
    )
    found = analyze_neurons(planted.astype(np.float32), p)
    assert found.frequency.tolist() == frequencies.tolist()
    assert found.explained.min() > (0.7 if p == 7 else 0.8)
    assert found.dominance.min() > (0.7 if p == 7 else 0.8)
    same = frequencies[:, 0] == frequencies[:, 1]
    assert (found.single[same] == frequencies[same, 0]).all()
    np.testing.assert_allclose(found.single_explained[same], found.explained[same])
    if p > 7:
        assert (found.single_explained[~same] < 0.6).all()
    np.testing.assert_allclose(found.variance, planted.var(axis=1), rtol=1e-4)


def test_shares_of_waves_are_exact() -> None:
    """A neuron made of three waves, of variances 2, 1 and 1/2 at (3, 0), (0, 5) and (4, 4)."""
    u, v = angles(13)
    neuron = 7 + 2 * np.cos(3 * u) + np.sqrt(2) * np.sin(5 * v + 1) + np.cos(4 * u + 4 * v)
    found = analyze_neurons(neuron[None], 13)
    assert found.variance == pytest.approx(3.5)
    assert found.frequency.tolist() == [[3, 5]]
    assert found.explained == pytest.approx(3 / 3.5)
    assert (found.single[0], found.single_explained[0]) == (3, pytest.approx(2 / 3.5))
    np.testing.assert_allclose(found.dominance, [[2 / 2.5, 1 / 1.5]])


def test_a_product_counts_for_both_digits() -> None:
    u, v = angles(13)
    found = analyze_neurons((np.cos(2 * u) * np.cos(6 * v))[None], 13)
    assert found.frequency.tolist() == [[2, 6]]
    assert found.explained == pytest.approx(1)
    assert found.single_explained == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("p", "at_most"), [(31, 0.1), (113, 0.01)])
def test_white_noise_is_explained_by_no_frequency(p: int, at_most: float) -> None:
    found = analyze_neurons(np.random.default_rng(0).normal(size=(100, p * p)).astype(np.float32), p)
    assert found.median(found.explained) < at_most
    assert found.median(found.single_explained) < at_most


def test_dead_neurons() -> None:
    u, v = angles(11)
    alive = np.maximum(np.cos(2 * u) + np.cos(2 * v), 0)
    found = analyze_neurons(np.stack([np.zeros(121), alive, np.full(121, 0.1), 1e-5 * alive]).astype(np.float32), 11)
    assert found.alive.tolist() == [False, True, False, False]
    assert np.isfinite(found.explained).all() and np.isfinite(found.dominance).all()
    assert found.median(found.explained) == found.explained[1]
    nothing = analyze_neurons(np.zeros((3, 121), np.float32), 11)
    assert not nothing.alive.any() and nothing.median(nothing.explained) == 0


def test_blocks_lie_in_the_order_of_the_neurons() -> None:
    neurons = np.random.default_rng(0).normal(size=(BLOCK_SIZE + 9, 49))
    whole = analyze_neurons(neurons, 7)
    for at in (0, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 8):
        alone = analyze_neurons(neurons[at : at + 1], 7)
        for name in ("variance", "frequency", "explained", "single", "single_explained", "dominance"):
            np.testing.assert_allclose(getattr(whole, name)[at], getattr(alone, name)[0], err_msg=name)


def test_neurons_of_a_network_by_construction() -> None:
    found = analyze_neurons(forward(adder(31, used=2, idle=7), grid(31)).neurons, 31)
    assert found.alive.all()
    assert found.frequency.tolist() == [[2, 2]] * 64 + [[7, 7]] * 64
    assert found.single.tolist() == [2] * 64 + [7] * 64
    assert found.single_explained.min() > 0.8
