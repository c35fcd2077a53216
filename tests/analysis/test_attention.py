"""Preference of attention heads for one digit."""

import numpy as np
import pytest

from miiii_search.analysis.attention import digit_preference


def test_heads_that_read_one_digit_the_other_both_and_none() -> None:
    attention = np.zeros((5, 3, 100), np.float32)
    attention[0, 0] = 1
    attention[1, 1], attention[1, 2] = 0.25, 0.75  # what ŷ gets does not matter
    attention[2, 0], attention[2, 1] = 0.5, 0.5
    attention[3, 0, ::2], attention[3, 1, 1::2] = 1, 1  # now this one, now that one
    attention[4, 2] = 1
    found = digit_preference(attention)
    np.testing.assert_allclose(found.mean, [1, -1, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(found.variation, [0, 0, 0, 1, 0], atol=1e-7)
    assert found.strength == pytest.approx(2 / 5)


def test_a_periodic_head() -> None:
    """(a0 − a1) / (a0 + a1) = b + c·cos: its mean is b, its standard deviation c / √2."""
    x = 2 * np.pi * np.arange(60) / 60
    preference = 0.3 + 0.5 * np.cos(x)
    attention = np.stack([(1 + preference) / 2, (1 - preference) / 2, np.ones_like(x)])[None]
    found = digit_preference(attention)
    assert found.mean == pytest.approx([0.3])
    assert found.variation == pytest.approx([0.5 / np.sqrt(2)])
