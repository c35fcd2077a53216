"""Correlation, singular values and their marks against SciPy, NumPy and tables of known rank."""

import numpy as np
import pytest
import scipy.stats

from miiii_search.analysis.embeddings import analyze_embeddings, pearson, singular_values
from tests.analysis.networks import adder, random_weights


def test_pearson_is_scipys() -> None:
    random = np.random.default_rng(0)
    for n in (2, 16, 256):
        a, b = random.normal(size=(2, n))
        for other in (b, a + 0.1 * b, -a + 0.1 * b, 3 * a + 7):
            assert pearson(a, other) == pytest.approx(scipy.stats.pearsonr(a, other).statistic, abs=1e-12)


def test_what_does_not_vary_correlates_with_nothing() -> None:
    """The mean of ten times 0.1 is not exactly 0.1."""
    constant = np.full(10, 0.1)
    assert pearson(constant, np.arange(10.0)) == pearson(np.arange(10.0), constant) == pearson(constant, constant) == 0


@pytest.mark.parametrize("shape", [(7, 16), (113, 32), (31, 31)])
def test_singular_values_rebuild_the_table(shape: tuple[int, int]) -> None:
    table = np.random.default_rng(0).normal(size=shape)
    found = singular_values(table)
    assert found.values.shape == (min(shape),) and found.vectors.shape == (shape[0], min(shape))
    eigenvalues = np.linalg.eigvalsh(table @ table.T)[::-1][: min(shape)]
    np.testing.assert_allclose(found.values**2, eigenvalues, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.vectors @ np.diag(found.values**2) @ found.vectors.T, table @ table.T, atol=1e-9)


def test_marks_of_tables_of_known_rank() -> None:
    random = np.random.default_rng(0)
    left, right = np.linalg.qr(random.normal(size=(31, 31)))[0], np.linalg.qr(random.normal(size=(16, 16)))[0]

    def rank_by_share(*values: float) -> dict[float, int]:
        n = len(values)
        return singular_values(left[:, :n] @ np.diag(values) @ right[:, :n].T).rank_by_share

    assert rank_by_share(1) == {0.5: 1, 0.9: 1}
    assert rank_by_share(1, 1, 1) == {0.5: 2, 0.9: 3}
    assert rank_by_share(*[1.0] * 15) == {0.5: 8, 0.9: 14}
    assert rank_by_share(10, 1, 1, 1) == {0.5: 1, 0.9: 1}  # 100 of 103
    assert rank_by_share(2, 1, 1, 1) == {0.5: 1, 0.9: 4}  # 4, 5, 6, 7 of 7
    assert singular_values(np.zeros((5, 3))).rank_by_share == {0.5: 1, 0.9: 1}


def test_the_answers_token_is_not_among_the_digits() -> None:
    weights = dict(random_weights(11, 16, 2, 11))
    before = analyze_embeddings(weights)
    weights["token_embedding"] = np.concatenate([weights["token_embedding"][:-1], np.full((1, 16), 1e6, np.float32)])
    weights["position_embedding"] = np.concatenate([weights["position_embedding"][:2], np.ones((1, 16), np.float32)])
    after = analyze_embeddings(weights)
    np.testing.assert_array_equal(before.singular.values, after.singular.values)
    np.testing.assert_array_equal(before.frequencies.energies, after.frequencies.energies)
    assert before.position_correlation == after.position_correlation


def test_of_a_network() -> None:
    weights = random_weights(11, 16, 2, 11)
    found = analyze_embeddings(weights)
    assert found.position_correlation == pytest.approx(
        scipy.stats.pearsonr(*weights["position_embedding"][:2].astype(np.float64)).statistic
    )
    np.testing.assert_allclose(
        found.singular.values, np.linalg.svd(weights["token_embedding"][:11].astype(np.float64), compute_uv=False)
    )
    assert {2, 7} <= set(analyze_embeddings(adder(31, used=2, idle=7)).frequencies.active.tolist())
