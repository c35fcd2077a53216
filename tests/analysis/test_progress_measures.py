"""Nanda et al.'s measures of planted waves and of a network by construction, against direct computation."""

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from miiii_search.analysis.network import Floats, Weights, forward, grid
from miiii_search.analysis.progress_measures import (
    ProgressMeasures,
    compute_progress_measures,
    digit_sum_energies,
    digit_sum_waves,
    key_frequencies,
)
from miiii_search.analysis.scores import training_mask
from miiii_search.experiment.spec import Experiment
from tests.analysis.networks import adder, random_weights


def sums(p: int) -> NDArray[np.intp]:
    return np.asarray(grid(p).sum(axis=1))


@pytest.mark.parametrize("p", [5, 7, 31])
def test_waves_of_the_sum_are_orthonormal(p: int) -> None:
    flat = digit_sum_waves(p).reshape(p - 1, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(p - 1), atol=1e-12)
    np.testing.assert_allclose(digit_sum_waves(p)[1, 0] * p / np.sqrt(2), np.cos(4 * np.pi * sums(p) / p), atol=1e-12)


def test_energies_of_planted_waves() -> None:
    p, angle = 13, 2 * np.pi * sums(13) / 13
    logits = np.zeros((p, p * p))
    logits[3] = 2 * np.cos(4 * angle) + 5
    logits[7] = np.sin(4 * angle) + 3 * np.sin(6 * angle + 1)
    logits[9] = np.cos(2 * np.pi * (grid(13)[:, 0] - grid(13)[:, 1]) / 13)  # of the difference
    np.testing.assert_allclose(digit_sum_energies(logits) / (p * p / 2), [0, 0, 0, 5, 0, 9], atol=1e-12)


def measure_directly(experiment: Experiment, weights: Weights, keys: list[int]) -> ProgressMeasures:
    """By least squares on the waves, and SciPy's softmax."""
    p, trained = experiment.p, training_mask(experiment).ravel()
    logits = forward({name: a.astype(np.float64) for name, a in weights.items()}, grid(p)).logits
    angle = 2 * np.pi * np.outer(sums(p), keys) / p
    cosine_and_sine = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    centred = logits - logits.mean(axis=1, keepdims=True)
    of_keys = (cosine_and_sine @ np.linalg.lstsq(cosine_and_sine, centred.T)[0]).T

    def loss(of: Floats, samples: NDArray[np.bool_]) -> float:
        log_probabilities = scipy.special.log_softmax(of, axis=0)
        return float(-log_probabilities[sums(p) % p, np.arange(p * p)][samples].mean())

    everything = np.ones(p * p, bool)
    restricted = loss(logits.mean(axis=1, keepdims=True) + of_keys, everything)
    return ProgressMeasures(
        5, loss(logits, trained), loss(logits, ~trained), restricted, loss(logits - of_keys, trained)
    )


@pytest.mark.parametrize("keys", [[2], [1, 5], [1, 2, 3, 4, 5]])
def test_measures_equal_direct_computation(keys: list[int]) -> None:
    experiment = Experiment(p=11, task="nanda")
    for weights in (random_weights(11, 16, 2, 11), adder(11, used=2, idle=4)):
        found, expected = (
            compute_progress_measures(experiment, weights, keys, 5),
            measure_directly(experiment, weights, keys),
        )
        for name in ("train", "held_out", "restricted", "excluded"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3), name


def test_the_one_frequency_of_a_network_by_construction() -> None:
    experiment, weights = Experiment(p=11, task="nanda"), adder(11, used=2, idle=4)
    weights = {**weights, "unembedding": 20 * weights["unembedding"]}
    assert key_frequencies(weights) == [2]
    found = compute_progress_measures(experiment, weights, [2], 0)
    assert max(found.restricted, found.train, found.held_out) < 1e-3
    assert found.excluded > 1  # what is left besides is no memory of the samples
    # With a frequency that it does not use, the network only guesses.
    assert compute_progress_measures(experiment, weights, [4], 0).restricted == pytest.approx(np.log(11), rel=0.01)


def test_key_frequencies_are_the_fewest_strongest_first() -> None:
    """The idle neurons of the network get their own read-out."""
    one = adder(11, used=2, idle=4)
    both = dict(one)
    angle = 2 * np.pi * 4 * np.arange(11) / 11
    phases = 2 * np.pi * np.arange(64) / 64
    for strength, expected in ((2.0, [4, 2]), (0.5, [2, 4]), (0.01, [2])):
        both["feed_forward_out"] = one["feed_forward_out"].copy()
        both["feed_forward_out"][64:, 21] = strength * np.cos(2 * phases)
        both["feed_forward_out"][64:, 22] = -strength * np.sin(2 * phases)
        both["unembedding"] = one["unembedding"].copy()
        both["unembedding"][21], both["unembedding"][22] = np.cos(angle), np.sin(angle)
        assert key_frequencies({name: a.astype(np.float32) for name, a in both.items()}) == expected


def test_a_fresh_network_guesses() -> None:
    weights = {**random_weights(31, 32, 4, 31)}
    weights["unembedding"] = 0.05 * weights["unembedding"]
    found = compute_progress_measures(Experiment(p=31, task="nanda"), weights, key_frequencies(weights), 0)
    for loss in (found.train, found.held_out, found.restricted, found.excluded):
        assert loss == pytest.approx(np.log(31), rel=0.02)


def test_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match="for the task nanda, not for miiii"):
        compute_progress_measures(Experiment(p=7), random_weights(7, 16, 2, 10), [1], 0)
