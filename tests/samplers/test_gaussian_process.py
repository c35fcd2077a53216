"""The Gaussian process, compared with textbook formulas in another form, and the ranking by expected improvement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from miiii_search.config.search_space import Point
from miiii_search.samplers.gaussian_process import (
    LENGTH_SCALE_BOUNDS,
    N_SETTINGS,
    NOISE_BOUNDS,
    Floats,
    GaussianProcess,
    rank_by_expected_improvement,
    rbf_kernel,
    to_coordinates,
)


def test_coordinates_are_ranks() -> None:
    points: list[Point] = [
        {"learning_rate": 1e-3, "weight_decay": 1.0, "dropout_mask": "step", "d_model": 128},
        {"learning_rate": 3e-4, "weight_decay": 0.0, "dropout_mask": "fixed", "d_model": 128},
        {"learning_rate": 3e-3, "weight_decay": 0.1, "dropout_mask": "step", "d_model": 128},
    ]
    # d_model, whether the mask is "fixed", whether it is "step", learning_rate, weight_decay
    rows = [[0.0, 0.0, 1.0, 0.5, 1.0], [0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.5]]
    assert to_coordinates(points).tolist() == rows
    assert to_coordinates([dict(reversed(point.items())) for point in points]).tolist() == rows


def test_points_that_lack_a_dimension_are_in_its_middle() -> None:
    points: list[Point] = [
        {"optimizer": "adamw"},
        {"optimizer": "muon", "muon_momentum": 0.8},
        {"optimizer": "muon", "muon_momentum": 0.9},
        {"optimizer": "muon", "muon_momentum": 0.95},
    ]
    # muon_momentum, whether the optimizer is "adamw", whether it is "muon"
    assert to_coordinates(points).tolist() == [[0.5, 1, 0], [0.0, 0, 1], [0.5, 0, 1], [1.0, 0, 1]]


def settings(dimensions: int) -> tuple[Floats, Floats]:
    """The lengths and noises that are averaged over, drawn log-uniformly one after the other."""
    generator = np.random.default_rng(0)
    lengths = np.exp(
        generator.uniform(math.log(LENGTH_SCALE_BOUNDS[0]), math.log(LENGTH_SCALE_BOUNDS[1]), (N_SETTINGS, dimensions))
    )
    return lengths, np.exp(generator.uniform(math.log(NOISE_BOUNDS[0]), math.log(NOISE_BOUNDS[1]), N_SETTINGS))


def expected(x: Floats, seen: list[int], asked: list[int], values: Floats, best: float) -> Floats:
    """Conditioning as a joint normal law has it, the evidence as its density, the improvement as an integral."""
    evidence, improvement = [], []
    for lengths, noise in zip(*settings(x.shape[1]), strict=True):
        distance = (((x[:, None] - x[None]) / lengths) ** 2).sum(-1)
        joint = np.exp(-distance / 2) + noise * np.eye(len(x))
        known = joint[np.ix_(seen, seen)]
        evidence.append(multivariate_normal(cov=known).pdf(values))
        row = []
        for a in asked:
            across = np.linalg.solve(known, joint[a, seen])
            law = norm(across @ values, np.sqrt(joint[a, a] - across @ joint[a, seen]))
            # E[max(f - best, 0)] is the integral of P(f > t) over t from best on.
            row.append(quad(law.sf, best, np.inf)[0])
        improvement.append(row)
    return np.average(improvement, axis=0, weights=evidence)


def test_expected_improvement() -> None:
    """With what was seen, and after one and two points that were asked about have begun."""
    generator = np.random.default_rng(1)
    x = generator.random((9, 2))
    seen, asked, values, best = [4, 0, 2, 6], [1, 5, 3, 8], generator.normal(size=4), 0.3
    process = GaussianProcess(x[seen], values, x[asked])
    for begun in (None, 2, 1):
        if begun is not None:
            process.fantasize(begun)
            seen, values = [*seen, asked[begun]], np.append(values, 0.0)
        others = [k for k, a in enumerate(asked) if a not in seen]
        found = process.expected_improvement(best)[others]
        np.testing.assert_allclose(found, expected(x, seen, [asked[k] for k in others], values, best), rtol=1e-6)


def test_the_same_point_many_times() -> None:
    """As of replicates; noise keeps the process apart from a singular one."""
    process = GaussianProcess(np.zeros((300, 2)), np.resize([1.0, -1.0], 300), np.zeros((2, 2)))
    assert np.all(np.isfinite(process.expected_improvement(1.0)))


def test_covariance_falls_with_the_distance() -> None:
    x = np.linspace(0, 1, 5)[:, None]
    for one in rbf_kernel(x, x, settings(1)[0]):
        np.testing.assert_allclose(np.diag(one), 1)
        assert np.all(np.diff(one[0]) < 0)
        assert np.linalg.eigvalsh(one).min() > -1e-9


GRID: list[Point] = [{"learning_rate": a, "dropout": b} for a in (1.0, 2.0, 3.0, 4.0) for b in (0.0, 0.1, 0.2, 0.3)]
X = to_coordinates(GRID)
VALUES = {k: float(str(point["learning_rate"])) for k, point in enumerate(GRID)}


@pytest.mark.parametrize("steps", [1, 3])
def test_it_learns_which_dimension_matters(steps: int) -> None:
    """Among points that differ in both dimensions, it prefers those on the better side of the one that matters."""
    asked = [k for k in range(16) if k % 4 == steps]
    assert rank_by_expected_improvement(X, {k: VALUES[k] for k in VALUES if k not in asked}, [], asked) == asked[::-1]


def test_it_knows_too_little_before_there_are_more_different_values_than_coordinates() -> None:
    assert rank_by_expected_improvement(X, {}, [], [0, 1]) == []
    assert rank_by_expected_improvement(X, {0: 1.0, 5: 2.0}, [], [1, 2]) == []
    assert rank_by_expected_improvement(X, {0: 1.0, 5: 2.0, 7: None}, [], [1, 2]) == []
    assert rank_by_expected_improvement(X, {0: 1.0, 5: 1.0, 10: 1.0, 15: 1.0}, [], [1, 2]) == []
    assert rank_by_expected_improvement(X, {0: 1.0, 5: 2.0, 10: 3.0}, [], []) == []
    assert set(rank_by_expected_improvement(X, {0: 1.0, 5: 2.0, 10: 3.0}, [], [1, 2])) == {1, 2}


def test_a_failed_run_counts_as_the_worst() -> None:
    known = {0: 1.0, 5: 2.0, 10: 3.0}
    waiting = [k for k in range(15) if k not in known]
    assert rank_by_expected_improvement(X, {**known, 15: None}, [], waiting) == rank_by_expected_improvement(
        X, {**known, 15: 1.0}, [], waiting
    )


def test_several_at_once_are_those_that_come_one_after_the_other() -> None:
    """Each knows of those before it, as of runs under way."""
    known = {0: 1.0, 5: 2.0, 10: 3.0, 15: 4.0}
    waiting = [k for k in range(16) if k not in known]
    one_by_one = list[int]()
    for _ in range(8):
        rest = [k for k in waiting if k not in one_by_one]
        one_by_one.append(rank_by_expected_improvement(X, known, one_by_one, rest)[0])
    assert rank_by_expected_improvement(X, known, [], waiting, 8)[:8] == one_by_one
    assert one_by_one != rank_by_expected_improvement(X, known, [], waiting)[:8]
    for n in (1, 2, 9, 12, 20):
        assert sorted(rank_by_expected_improvement(X, known, [], waiting, n)) == waiting


def test_the_unit_of_the_values_makes_no_difference() -> None:
    """Objectives of a study lie anywhere: accuracies around 0.9 that differ by thousandths, or minus many epochs."""
    known = {0: 1.0, 5: 2.5, 10: 3.0, 15: 2.0}
    waiting = [k for k in range(16) if k not in known]
    order = rank_by_expected_improvement(X, known, [8], waiting)
    for scale, offset in ((1000.0, -5000.0), (0.001, 0.9)):
        assert (
            rank_by_expected_improvement(X, {k: scale * value + offset for k, value in known.items()}, [8], waiting)
            == order
        )


def test_favour() -> None:
    known = {0: 1.0, 5: 2.0, 10: 3.0, 15: 4.0}
    waiting = [k for k in range(16) if k not in known]
    order = rank_by_expected_improvement(X, known, [], waiting)
    assert rank_by_expected_improvement(X, known, [], waiting, factors={order[-1]: 1e6})[0] == order[-1]
    assert rank_by_expected_improvement(X, known, [], waiting, factors=dict.fromkeys(waiting, 2.0)) == order


def test_what_cannot_be_computed() -> None:
    with pytest.raises(ArithmeticError):
        rank_by_expected_improvement(X, {0: 1.0, 5: float("inf"), 10: 3.0}, [], [1, 2])
