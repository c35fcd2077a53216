"""Frequencies of tables and grids against sums over complex exponentials, and planted ones in noise."""

import cmath

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from miiii_search.analysis.fourier import (
    FAMILYWISE_ERROR,
    cosine_and_sine,
    detect_frequencies,
    dft_matrix,
    fourier_basis,
    frequency_energies,
    grid_power,
    n_frequencies,
    without_frequencies,
)

Array = NDArray[np.float64]
PRIMES = (5, 7, 31, 113, 199)


def planted(p: int, d: int, amplitudes: dict[int, float], noise: float, seed: int) -> Array:
    """Return a table `[p, d]` of noise, multiplied by a factor at some frequencies."""
    random = np.random.default_rng(seed)
    table: Array = noise * random.normal(size=(p, d))
    for k, amplitude in amplitudes.items():
        angle = 2 * np.pi * k * np.arange(p) / p
        table += amplitude * (np.outer(np.cos(angle), random.normal(size=d)))
        table += amplitude * (np.outer(np.sin(angle), random.normal(size=d)))
    return table


@pytest.mark.parametrize("p", PRIMES)
def test_the_basis_is_orthonormal(p: int) -> None:
    basis = fourier_basis(p)
    np.testing.assert_allclose(basis @ basis.T, np.eye(p), atol=1e-12)
    np.testing.assert_allclose(basis[0], 1 / np.sqrt(p))
    # Row 2k − 1 is cos of k and row 2k its sin.
    for k in (1, n_frequencies(p)):
        np.testing.assert_allclose(basis[2 * k - 1 : 2 * k + 1], cosine_and_sine(p, k))
        expected = [[f(2 * np.pi * k * x / p) * np.sqrt(2 / p) for x in range(p)] for f in (np.cos, np.sin)]
        np.testing.assert_allclose(basis[2 * k - 1 : 2 * k + 1], expected, atol=1e-12)


@pytest.mark.parametrize("p", [5, 7, 31])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_energies_are_those_of_the_sum_over_complex_exponentials(p: int, dtype: type[np.floating]) -> None:
    table = np.random.default_rng(p).normal(size=(p, 6)).astype(dtype)
    energies = frequency_energies(table)
    for k in range(1, n_frequencies(p) + 1):
        sums = [sum(row[j] * cmath.exp(-2j * cmath.pi * k * x / p) for x, row in enumerate(table)) for j in range(6)]
        assert energies[k - 1] == pytest.approx(2 / p * sum(abs(s) ** 2 for s in sums), rel=1e-5)
    assert energies.dtype == np.float64 and len(energies) == n_frequencies(p)


def test_the_dft_matrix() -> None:
    signal = np.random.default_rng(0).normal(size=13)
    np.testing.assert_allclose(dft_matrix(13) @ signal, np.fft.fft(signal), atol=1e-12)


@pytest.mark.parametrize("noise", [1.0, 0.5])
@pytest.mark.parametrize("p", [23, 31, 113])
def test_planted_frequencies_are_found_and_no_others(p: int, noise: float) -> None:
    for seed in range(5):
        chosen = np.random.default_rng(seed).permutation(n_frequencies(p))[:4] + 1
        found = detect_frequencies(planted(p, 32, dict.fromkeys(chosen.tolist(), 2.0), noise, seed))
        assert found.active.tolist() == sorted(chosen)
        assert found.energy_share(4) > 0.7
        assert 3 < found.participation < 10


@pytest.mark.parametrize("p", [23, 113])
def test_three_quarters_of_the_frequencies(p: int) -> None:
    chosen = range(1, 3 * n_frequencies(p) // 4 + 1)
    assert detect_frequencies(planted(p, 64, dict.fromkeys(chosen, 1.0), 0.5, 1)).active.tolist() == list(chosen)


@pytest.mark.parametrize("p", [23, 113])
def test_a_weak_frequency_beside_a_strong_one(p: int) -> None:
    """A thousandth of the strong one's energy, and four times that of the noise at a frequency."""
    found = detect_frequencies(planted(p, 64, {3: 20.0, 7: 1.0}, np.sqrt(p / 8), 0))
    assert found.active.tolist() == [3, 7]
    assert found.energies[6] < 0.01 * found.energies[2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_there_is_no_noise(dtype: type[np.floating]) -> None:
    for amplitudes in ({3: 1.0}, {2: 1.0, 5: 0.01, 9: 5.0}, dict.fromkeys(range(1, 9), 1.0)):
        found = detect_frequencies(planted(23, 16, amplitudes, 0, 0).astype(dtype))
        assert found.active.tolist() == sorted(amplitudes)
    for constant in (0.0, 0.1):
        nothing = detect_frequencies(np.full((23, 16), constant, dtype))
        assert nothing.active.size == 0
        assert nothing.participation >= 0 and 0 <= nothing.energy_share(1) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("correlated", [False, True], ids=["white", "correlated columns"])
@pytest.mark.parametrize(("p", "d"), [(7, 16), (23, 32)])
def test_noise_shows_a_frequency_as_seldom_as_promised(p: int, d: int, correlated: bool) -> None:
    """The number of 200 tables with a detection is at most the 99.99 % quantile for an error of `FAMILYWISE_ERROR`."""
    random, tables = np.random.default_rng(p), 200
    mix = random.normal(size=(d, 4)) @ random.normal(size=(4, d)) if correlated else np.eye(d)
    alarms = sum(detect_frequencies(random.normal(size=(p, d)) @ mix).active.size > 0 for _ in range(tables))
    assert alarms <= scipy.stats.binom.isf(1e-4, tables, FAMILYWISE_ERROR)


def test_five_digits_are_too_few() -> None:
    for seed in range(50):
        assert detect_frequencies(planted(5, 16, {1: 1.0}, 0.01 * (seed % 2), seed)).active.size == 0


def test_without_frequencies() -> None:
    """It equals the rest after a projection with sums over complex exponentials."""
    table = np.random.default_rng(0).normal(size=(11, 4))
    of_k = [np.exp(2j * np.pi * k * np.arange(11) / 11) / np.sqrt(11) for k in (2, -2, 5, -5)]
    projector = np.eye(11) - sum(np.outer(v, v.conj()) for v in of_k)
    np.testing.assert_allclose(without_frequencies(table, [2, 5]), (projector @ table).real, atol=1e-12)
    assert without_frequencies(table.astype(np.float32), [2]).dtype == np.float32
    np.testing.assert_array_equal(without_frequencies(table, []), table)


@pytest.mark.parametrize("p", [5, 7, 11])
def test_power_is_that_of_the_double_sum(p: int) -> None:
    grid = np.random.default_rng(p).normal(size=(p, p))
    power, m = grid_power(grid), n_frequencies(p)
    assert power.shape == (m + 1, m + 1)
    for k in range(m + 1):
        for l in range(m + 1):  # noqa: E741
            expected = 0.0
            for a, b in {(k, l), (-k, l), (k, -l), (-k, -l)}:
                of = [
                    grid[x0, x1] * cmath.exp(-2j * cmath.pi * (a * x0 + b * x1) / p)
                    for x0 in range(p)
                    for x1 in range(p)
                ]
                expected += abs(sum(of)) ** 2 / p**2
            assert power[k, l] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", PRIMES)
def test_power_sums_to_the_sum_of_squares(p: int) -> None:
    grids = np.random.default_rng(0).normal(size=(2, 3, p, p)).astype(np.float32)
    power = grid_power(grids)
    assert power.dtype == np.float64
    np.testing.assert_allclose(power.sum(axis=(2, 3)), (grids.astype(np.float64) ** 2).sum(axis=(2, 3)), rtol=1e-5)


def test_power_of_waves_lies_where_they_are() -> None:
    x0, x1 = np.meshgrid(np.arange(13), np.arange(13), indexing="ij")
    angle = 2 * np.pi / 13
    for grid, at in [
        (np.cos(angle * 3 * x0 + 1), (3, 0)),
        (np.sin(angle * 5 * x1), (0, 5)),
        (np.cos(angle * (4 * x0 + 6 * x1)), (4, 6)),
        (np.cos(angle * (4 * x0 - 6 * x1) + 2), (4, 6)),
        (np.ones((13, 13)), (0, 0)),
    ]:
        power = grid_power(grid)
        assert power[at] == pytest.approx((grid**2).sum())
        assert power.sum() == pytest.approx(power[at])
