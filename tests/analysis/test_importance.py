"""Shares of variance against loops over the grid, lstsq, and effects that were planted."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from miiii_search.analysis.importance import Importance, functional_anova

Floats = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int_]]

NAMES, SIZES = ("a", "b", "c"), (4, 3, 2)


def full_grid(sizes: tuple[int, ...], replicates: int = 1) -> Indices:
    return np.array(list(itertools.product(*map(range, sizes))) * replicates)


def divide(points: Indices, values: Floats, is_grid: bool = True, sizes: tuple[int, ...] = SIZES) -> Importance:
    return functional_anova([*"abcdefg"[: len(sizes)]], sizes, points, values, is_grid)


def shares_of(importance: Importance) -> dict[str, float]:
    return {"".join(sorted(term.names)): term.share for term in importance.terms}


def by_loops(points: Indices, values: Floats) -> dict[str, float]:
    """Functional ANOVA of a complete grid without replicates, by its definition."""
    table = {tuple(point): value for point, value in zip(points, values, strict=True)}
    mean = sum(table.values()) / len(table)

    def average(fixed: dict[int, int]) -> float:
        found = [v for point, v in table.items() if all(point[axis] == level for axis, level in fixed.items())]
        return float(sum(found) / len(found))

    total = sum((v - mean) ** 2 for v in table.values())
    shares = {}
    axes = range(points.shape[1])
    for i in axes:
        shares[NAMES[i]] = sum((average({i: p[i]}) - mean) ** 2 for p in table) / total
    for i, j in itertools.combinations(axes, 2):
        effect = [average({i: p[i], j: p[j]}) - average({i: p[i]}) - average({j: p[j]}) + mean for p in table]
        shares[NAMES[i] + NAMES[j]] = sum(e**2 for e in effect) / total
    return shares


def explained(points: Indices, values: Floats, axes: tuple[int, ...], pair: tuple[int, int] | None = None) -> float:
    """R² of an additive model, by lstsq on indicators."""
    columns = [np.ones(len(values))]
    for axis in axes:
        columns += [(points[:, axis] == level).astype(float) for level in range(points[:, axis].max() + 1)]
    if pair:
        columns += [
            ((points[:, pair[0]] == k) & (points[:, pair[1]] == m)).astype(float)
            for k in range(points[:, pair[0]].max() + 1)
            for m in range(points[:, pair[1]].max() + 1)
        ]
    design = np.stack(columns, axis=1)
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(1 - left @ left / np.sum((values - values.mean()) ** 2))


def test_a_complete_grid_against_loops() -> None:
    points, values = full_grid(SIZES), np.random.default_rng(0).gamma(1.0, size=24)
    found = divide(points, values)
    assert (found.method, found.trials, found.cells, found.cells_tried) == ("exact", 24, 24, 24)
    expected = by_loops(points, values)
    assert shares_of(found) == pytest.approx(expected, abs=1e-12)
    assert found.higher == pytest.approx(1 - sum(expected.values()), abs=1e-12)
    assert found.seed is None


def test_replicates_of_a_complete_grid() -> None:
    points, values = full_grid(SIZES, replicates=3), np.random.default_rng(1).normal(size=72)
    cells = values.reshape(3, 24)
    total = values.var()
    found = divide(points, values)
    assert found.seed == pytest.approx(cells.var(axis=0).mean() / total)
    scale = cells.mean(axis=0).var() / total
    expected = {name: scale * share for name, share in by_loops(points[:24], cells.mean(axis=0)).items()}
    assert shares_of(found) == pytest.approx(expected, abs=1e-12)
    assert found.higher is not None and found.seed is not None
    assert sum(expected.values()) + found.seed + found.higher == pytest.approx(1)


@pytest.mark.parametrize("replicates", [2, 3])
def test_both_methods_agree_on_a_balanced_grid(replicates: int) -> None:
    points = full_grid(SIZES, replicates)
    values = np.random.default_rng(2).normal(size=len(points))
    fitted = divide(points, values, is_grid=False)
    assert fitted.method == "least squares"
    exact = divide(points, values)
    assert shares_of(fitted) == pytest.approx(shares_of(exact), abs=1e-9)
    assert fitted.shared == pytest.approx(0, abs=1e-9)
    assert [term.chance_level for term in fitted.terms] == pytest.approx([term.chance_level for term in exact.terms])


def test_an_incomplete_grid_against_lstsq() -> None:
    generator = np.random.default_rng(3)
    points = generator.permutation(full_grid(SIZES, replicates=3))[:40]
    points = points[(points != [1, 1, 1]).any(axis=1)]
    values = points @ [1.0, 0.5, 0.2] + generator.normal(size=len(points))
    found = divide(points, values)
    assert found.method == "least squares" and found.cells == 24 and found.cells_tried < 24
    assert f"{found.cells_tried} of the grid's 24 points have an objective" in " ".join(found.notes)
    shares = shares_of(found)
    main = explained(points, values, (0, 1, 2))
    expected = {NAMES[k]: main - explained(points, values, others) for k, others in enumerate([(1, 2), (0, 2), (0, 1)])}
    assert {name: shares[name] for name in NAMES} == pytest.approx(expected, abs=1e-9)
    assert found.shared == pytest.approx(main - sum(expected.values()))
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        gain = explained(points, values, (0, 1, 2), (i, j)) - main
        assert shares[NAMES[i] + NAMES[j]] == pytest.approx(gain, abs=1e-9)


@pytest.mark.parametrize("is_complete", [True, False])
def test_an_additive_effect_is_found_and_nothing_else(is_complete: bool) -> None:
    points = full_grid(SIZES, replicates=2)
    values = np.array([0.0, 1.0, 5.0, 2.0])[points[:, 0]] + np.array([0.0, 0.5, 0.1])[points[:, 1]]
    if not is_complete:
        keep = (points != [3, 0, 1]).any(axis=1)
        points, values = points[keep], values[keep]
    found = divide(points, values)
    shares = shares_of(found)
    assert found.method == ("exact" if is_complete else "least squares")
    assert found.most_important == "a"
    assert {name for name, share in shares.items() if share} == {"a", "b"}
    assert shares["a"] + shares["b"] + (found.shared or 0.0) == pytest.approx(1)
    if is_complete:
        assert shares["a"] == pytest.approx(np.var([0, 1, 5, 2]) / (np.var([0, 1, 5, 2]) + np.var([0, 0.5, 0.1])))


def test_an_interaction_is_found_and_no_dimension_decides() -> None:
    points = full_grid((2, 2, 3), replicates=2)
    values = ((points[:, 0] + points[:, 1]) % 2).astype(float)
    found = divide(points, values, sizes=(2, 2, 3))
    assert shares_of(found) == pytest.approx({"a": 0, "b": 0, "c": 0, "ab": 1, "ac": 0, "bc": 0}, abs=1e-12)
    assert found.most_important is None
    assert [term.names for term in found.terms if term.is_significant] == [("a", "b")]
    three = (points.sum(axis=1) % 2).astype(float)
    assert (divide(points[:12], three[:12], sizes=(2, 2, 3)).higher or 0) > 0.8


def test_two_dimensions_that_cannot_be_told_apart() -> None:
    points = np.array([[k % 2, k % 2, k // 2 % 2] for k in range(24)])
    values = np.asarray(np.random.default_rng(6).normal(points[:, 0], 0.1), np.float64)
    found = divide(points, values, sizes=(2, 2, 2))
    shares = shares_of(found)
    assert shares["a"] == shares["b"] == 0 and found.most_important is None
    assert found.shared is not None and found.shared > 0.9


@pytest.mark.parametrize("is_complete", [True, False])
def test_noise_stands_out_once_in_twenty(is_complete: bool) -> None:
    generator, studies = np.random.default_rng(4), 400
    points = full_grid(SIZES, replicates=2)
    if not is_complete:
        points = points[generator.permutation(len(points))[:36]]
    above: dict[tuple[str, ...], int] = {}
    for _ in range(studies):
        for term in divide(points, generator.normal(size=len(points))).terms:
            above[term.names] = above.get(term.names, 0) + term.is_significant
    assert len(above) == 6
    for count in above.values():  # 20 of 400; a binomial has 6 standard deviations of 26 around it
        assert stats.binomtest(count, studies, 0.05).pvalue > 1e-6
    assert abs(sum(above.values()) / (6 * studies) - 0.05) < 0.02


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.5, 1.0])
def test_what_stands_out_is_what_an_f_test_says(scale: float) -> None:
    points = full_grid(SIZES, replicates=2)
    noise = np.random.default_rng(5).normal(size=len(points))
    values = scale * points[:, 0] + 3.0 * points[:, 1] + noise
    term = next(t for t in divide(points, values).terms if t.names == ("a",))
    whole, without = explained(points, values, (0, 1, 2)), explained(points, values, (1, 2))
    f = ((whole - without) / 3) / ((1 - whole) / (len(values) - 1 - 6))
    assert term.is_significant == (stats.f.sf(f, 3, len(values) - 7) < 0.05)


def test_in_words() -> None:
    points = full_grid(SIZES)
    values = np.asarray(2.0 * points[:, 2] + 0.5 * (points[:, 1] == 1), np.float64)
    assert divide(points, values).in_words == "c explains 95 % of the variance of the objective; then b (5 %)"
    assert (
        divide(points, np.zeros(24)).in_words == "all 24 trials have the same objective, so no hyperparameter matters"
    )
    three = (points.sum(axis=1) % 2).astype(float)
    assert divide(points, three).in_words == "no effect is significant with 24 trials"
    pairs = full_grid((2, 2, 3), replicates=2)
    found = divide(pairs, ((pairs[:, 0] + pairs[:, 1]) % 2).astype(float), sizes=(2, 2, 3))
    assert found.in_words == "no hyperparameter is significant alone, but together: a × b (100 %)"


def test_one_level_only() -> None:
    points = full_grid((1, 3, 1), replicates=2)
    found = divide(points, points[:, 1].astype(np.float64), sizes=(1, 3, 1))
    assert shares_of(found) == {"b": pytest.approx(1)} and found.most_important == "b"
    found = divide(points[:1].repeat(5, 0), np.arange(5.0), sizes=(1, 3, 1))
    assert (found.method, found.terms) == ("none", ())
    assert found.notes == ("every hyperparameter has been tried at one value only, so nothing can be compared",)


def test_nothing_to_compare() -> None:
    nothing = divide(np.zeros((0, 3), int), np.zeros(0))
    assert (nothing.method, nothing.terms, nothing.trials, nothing.cells_tried) == ("none", (), 0, 0)
    assert "no trial has an objective" in nothing.notes[0]
    same = divide(full_grid(SIZES), np.full(24, 0.1) + 1e-17)
    assert same.terms == () and same.notes == ("all 24 trials have the same objective, so no hyperparameter matters",)
    no_dimensions = divide(np.zeros((3, 0), int), np.arange(3.0), sizes=())
    assert no_dimensions.terms == () and no_dimensions.notes


def test_too_few_trials() -> None:
    points = full_grid(SIZES)[[0, 5, 11, 17, 20]]
    found = divide(points, np.arange(5.0))
    assert found.terms == () and found.most_important is None
    assert "5 trials with an objective are too few" in found.notes[0]


def test_a_grid_of_noise_says_so() -> None:
    # A complete grid of four trials has no degree of freedom left for a pair.
    found = divide(full_grid((2, 2)), np.array([0.0, 1.0, 1.0, 0.1]), sizes=(2, 2))
    assert found.method == "exact" and found.most_important is None
    assert "no effect is significant with 4 trials" in found.notes
    assert {term.names: term.chance_level for term in found.terms}[("a", "b")] == 1.0


def test_a_conditional_dimension_is_judged_among_the_trials_that_use_it() -> None:
    """The second of two optimizers has a rate of three levels. All trials also have a dropout of two levels."""
    points = np.array([[0, -1, k] for k in (0, 1)] + [[1, rate, k] for rate in (0, 1, 2) for k in (0, 1)])
    points = np.concatenate([points] * 3)
    rng = np.random.default_rng(0)
    optimizer, rate = np.array([0.2, 0.9]), np.array([-0.1, 0.0, 0.1, 0.0])  # the last is the rate of those without
    values = optimizer[points[:, 0]] + rate[points[:, 1]] + rng.normal(0, 1e-4, len(points))
    result = functional_anova(["optimizer", "rate", "dropout"], (2, 3, 2), points, values, is_grid=True, cells=8)
    shares = shares_of(result)
    between = np.var(optimizer[points[:, 0]]) / np.var(values)
    assert result.method == "least squares" and (result.cells, result.cells_tried) == (8, 8)
    np.testing.assert_allclose(shares["optimizer"], between, atol=1e-3)
    np.testing.assert_allclose(shares["rate"], 1 - between, atol=1e-3)
    assert shares["dropout"] < 1e-3
    assert result.most_important == "optimizer"


def test_an_interaction_is_not_one_with_a_dimension_that_only_some_trials_use() -> None:
    """Dropout helps one optimizer and harms the other. The rate of the second one makes no difference."""
    points = np.array([[0, -1, k] for k in (0, 1)] * 2 + [[1, rate, k] for rate in (0, 1) for k in (0, 1)])
    points = np.concatenate([points] * 3)
    values = np.where(points[:, 0] == points[:, 2], 1.0, 0.0) + np.random.default_rng(0).normal(0, 1e-4, len(points))
    shares = functional_anova(["optimizer", "rate", "dropout"], (2, 2, 2), points, values, True, 6)
    pairs = {term.names: term.share for term in shares.terms if len(term.names) == 2}
    np.testing.assert_allclose(pairs["optimizer", "dropout"], 1, atol=1e-3)
    assert pairs.get(("rate", "dropout"), 0.0) < 1e-3
