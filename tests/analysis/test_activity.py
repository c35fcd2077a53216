"""Frequencies through training: planted spectra counted by hand, and those of a real network by brute force."""

import cmath

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from miiii_search.analysis.activity import FrequencyActivity, analyze_activity
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey
from tests.training import textbook


def test_counts_by_hand() -> None:
    """P = 7 has frequencies 1 to 3. A row of x0 counts with that of its negative, k and 7 − k."""
    flat = np.ones((7, 4), np.float32)
    peaked = np.zeros((7, 4), np.float32)
    peaked[5, 1] = 8  # −2 of x0 with 1 of x1
    peaked[1, 3] = 2
    flat[0], flat[:, 0] = 1e6, 1e6  # the constant's row and column count for nothing
    found = analyze_activity({64: flat, 16: flat, 32: flat, 128: flat, 256: peaked})
    assert found is not None
    assert found.epochs.tolist() == [16, 32, 64, 128, 256]
    np.testing.assert_allclose(found.activation[:4], 1 / 3)
    np.testing.assert_allclose(found.activation[4], [[0.2, 0.8, 0], [0.8, 0, 0.2]])
    # Of x0 as of x1: 12 values of 1/3, and 0.2, 0.8, 0.
    values = [1 / 3] * 12 + [0.2, 0.8, 0]
    limit = np.mean(values) + 2 * np.std(values)
    np.testing.assert_allclose(found.threshold(), [limit, limit])
    assert found.counts().tolist() == [[0, 0]] * 4 + [[1, 1]]
    assert found.counts(sigmas=4).tolist() == [[0, 0]] * 5  # 0.8 is 3.2 σ above


def test_smoothing_spreads_over_the_looks() -> None:
    flat, peaked = np.ones((7, 4), np.float32), np.zeros((7, 4), np.float32)
    peaked[2, 2] = 1
    found = analyze_activity({2**k: peaked if k == 5 else flat for k in range(10)})
    assert found is not None
    smooth = found.smoothed()
    np.testing.assert_allclose(smooth.activation.sum(axis=2), 1)
    weights = np.exp(-0.5 * np.arange(-4.0, 5) ** 2)
    expected = 1 / 3 + 2 / 3 * weights[4] / weights.sum()  # SciPy cuts at four σ
    np.testing.assert_allclose(smooth.activation[5, :, 1], expected)


def test_nothing_recorded_and_nothing_active() -> None:
    assert analyze_activity({}) is None
    found = analyze_activity({16: np.zeros((5, 3), np.float32)})
    assert found is not None
    np.testing.assert_allclose(found.activation, 0.5)
    assert found.counts().tolist() == [[0, 0]]


@pytest.mark.parametrize("p", [5, pytest.param(11, marks=pytest.mark.slow)])
def test_of_a_real_spectrum(p: int) -> None:
    """Against the textbook's neurons and sums over complex exponentials, at every frequency of both digits."""
    experiment, hyperparameters = Experiment(p=p, epochs=16), Hyperparameters(d_model=16, n_heads=2)
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters))
    lane = lanes.admit(experiment, hyperparameters)
    spectrum, weights = lanes.spectrum(lane), lanes.weights(lane)
    x = np.array([[x0, x1] for x0 in range(p) for x1 in range(p)])
    neurons = np.asarray(
        jax.jit(textbook.transformer)({k: jnp.asarray(a) for k, a in weights.items()}, jnp.asarray(x))["neurons"]
    )[:, 2].astype(np.float64)

    turn = np.array([[cmath.exp(-2j * cmath.pi * k * digit / p) for digit in range(p)] for k in range(p)])
    full = np.zeros((p, p))
    for k in range(p):
        for m in range(p):
            full[k, m] = np.abs((turn[k][x[:, 0]] * turn[m][x[:, 1]]) @ neurons).mean()
    np.testing.assert_allclose(spectrum, full[:, : p // 2 + 1], rtol=1e-3, atol=1e-4)
    m = (p - 1) // 2
    full = full[1:, 1:]  # without the constant's row and column, all p − 1 frequencies of either sign
    expected = np.array(
        [[of[k - 1] + of[p - k - 1] for k in range(1, m + 1)] for of in (full.sum(axis=1), full.sum(axis=0))]
    )
    expected /= expected.sum(axis=1, keepdims=True)
    found = analyze_activity({16: spectrum})
    assert found is not None
    np.testing.assert_allclose(found.activation[0], expected, rtol=1e-3)


class Counted(FrequencyActivity):
    """Activity with only its counts, as in the paper's Table 3."""

    def counts(self, sigmas: float = 2.0) -> NDArray[np.intp]:
        return np.stack([self.epochs, np.zeros_like(self.epochs)], axis=1)


@pytest.mark.parametrize(
    ("counts", "phases"),
    [
        ([0, 0, 10, 18, 10], [1, 1, 2, 3, 4]),  # Table 3
        ([0, 1, 5, 6], [1, 2, 2, 2]),
        ([0, 12, 15, 14, 8, 9], [1, 2, 3, 3, 4, 4]),
        ([2, 6, 6], [2, 2, 2]),
        ([0, 0, 1, 0], [1, 1, 2, 2]),
        ([0, 4, 0], [1, 3, 4]),
        ([0], [1]),
    ],
)
def test_phases(counts: list[int], phases: list[int]) -> None:
    assert Counted(np.array(counts), np.zeros((len(counts), 2, 3))).phases() == phases
