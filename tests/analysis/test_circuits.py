"""Ablations of a network that is known to need one frequency, two heads and one group of neurons; and brute force."""

from collections.abc import Sequence

import numpy as np
import pytest

from miiii_search.analysis.circuits import (
    ABLATION_SAMPLES,
    NEEDED_DROP,
    Ablations,
    ablate,
    accuracy_lost,
    harmonic_offsets,
    transient_frequencies,
    without_frequency,
)
from miiii_search.analysis.network import Weights, forward, grid
from miiii_search.analysis.neurons import analyze_neurons
from miiii_search.analysis.scores import accuracies, grid_labels, training_mask
from miiii_search.experiment.spec import Experiment
from tests.analysis.networks import adder, random_weights

MIIII = Experiment(p=11, train_fraction=0.3)


@pytest.mark.parametrize(("p", "used", "idle"), [(7, 1, 2), (11, 3, 1), (31, 5, 12)])
def test_what_is_needed_is_found_and_nothing_else(p: int, used: int, idle: int) -> None:
    found = ablate(Experiment(p=p, task="nanda"), adder(p, used, idle), 77)
    assert found.epoch == 77
    assert found.accuracy.tolist() == [1.0]
    others = [k for k in range(1, (p - 1) // 2 + 1) if k != used]
    assert found.frequencies[used - 1] < -0.6
    assert (found.frequencies[np.array(others) - 1] == 0).all()
    assert (found.heads[:2] < -0.6).all() and (found.heads[2:] == 0).all()
    assert found.groups[used - 1] < -0.6
    assert (found.groups[np.array(others) - 1] == 0).all()
    sizes = {used: 64, idle: 64}
    assert found.group_sizes.tolist() == [sizes.get(k, 0) for k in range(1, (p - 1) // 2 + 1)]
    assert accuracy_lost(found, [True]).argmax() == used - 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_frequency(dtype: type[np.floating]) -> None:
    """The embedding equals the rest after a least-squares fit of the two waves; the other weights are unchanged."""
    weights = random_weights(11, 16, 2, 11, dtype=dtype)
    angle = 2 * np.pi * 4 * np.arange(11) / 11
    cosine_and_sine = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    digits = weights["token_embedding"][:11].astype(np.float64)
    fit = np.linalg.lstsq(cosine_and_sine, digits)[0]
    found = without_frequency(weights, 4)
    assert found["token_embedding"].dtype == dtype
    np.testing.assert_allclose(found["token_embedding"][:11], digits - cosine_and_sine @ fit, atol=1e-6)
    np.testing.assert_array_equal(found["token_embedding"][11], weights["token_embedding"][11])
    assert all(found[name] is weights[name] for name in weights if name != "token_embedding")


def by_brute_force(weights: Weights, samples: Sequence[int], part: str, at: int) -> list[float]:
    """Compute accuracies with a head or a group of neurons at its mean, by a full pass over the grid in float64."""
    in_float64 = {name: array.astype(np.float64) for name, array in weights.items()}
    whole = forward(in_float64, grid(11))
    activation = (whole.head_output if part == "head_output" else whole.neurons).copy()
    members = [at] if part == "head_output" else analyze_neurons(whole.neurons, 11).frequency[:, 0] == at
    activation[members] = activation[members].mean(axis=-1, keepdims=True)
    logits = forward(in_float64, grid(11), {part: lambda _: activation}).logits
    y = grid_labels(MIIII).reshape(-1, 121)[:, samples]
    return [float(a) for a in accuracies(logits[:, samples], y, MIIII.task_moduli)]


def test_parts_equal_full_passes_with_them_replaced() -> None:
    """This includes the shortcut for the neurons. In a random network every part changes some task."""
    weights = random_weights(11, 32, 4, sum(MIIII.task_moduli))
    samples = np.flatnonzero(~training_mask(MIIII)).tolist()
    found = ablate(MIIII, weights, 0)
    assert found.frequencies.shape == (5, 4) and found.heads.shape == (4, 4) and found.groups.shape == (5, 4)
    for head in range(4):
        expected = by_brute_force(weights, samples, "head_output", head)
        np.testing.assert_allclose(found.accuracy + found.heads[head], expected, atol=1e-12)
    for k in range(1, 6):
        expected = by_brute_force(weights, samples, "neurons", k)
        np.testing.assert_allclose(found.accuracy + found.groups[k - 1], expected, atol=1e-12)
        whole = forward(without_frequency(weights, k), grid(11)[samples]).logits
        y = grid_labels(MIIII).reshape(-1, 121)[:, samples]
        np.testing.assert_allclose(found.accuracy + found.frequencies[k - 1], accuracies(whole, y, MIIII.task_moduli))
    assert np.abs(found.heads).max() > 0 and np.abs(found.groups).max() > 0
    # Random neurons may be dead, and are then in no group.
    assert found.group_sizes.sum() == analyze_neurons(forward(weights, grid(11)).neurons, 11).alive.sum() > 64


def test_samples_are_held_out_and_always_the_same() -> None:
    experiment = Experiment(p=53, task="nanda", train_fraction=0.2)
    assert 53**2 - experiment.n_train > ABLATION_SAMPLES
    weights = random_weights(53, 16, 2, 53)
    few, again = ablate(experiment, weights, 0, samples=100), ablate(experiment, weights, 0, samples=100)
    assert few.accuracy == again.accuracy and (few.accuracy * 100 % 1 < 1e-9).all()
    np.testing.assert_array_equal(few.frequencies, again.frequencies)


@pytest.mark.parametrize("p", [5, 7])
def test_the_smallest_primes(p: int) -> None:
    experiment = Experiment(p=p)
    found = ablate(experiment, random_weights(p, 16, 2, sum(experiment.task_moduli)), 0)
    assert found.frequencies.shape == ((p - 1) // 2, len(experiment.task_moduli))


def lost(epoch: int, *by_frequency: Sequence[float]) -> Ablations:
    """Return ablations with this loss of accuracy of each task without each frequency."""
    frequencies = -np.array(by_frequency)
    none = np.zeros_like(frequencies)
    return Ablations(epoch, np.ones(frequencies.shape[1]), frequencies, none, none, np.zeros(len(none), np.intp))


def planted(p: int, moduli: Sequence[int], lost: dict[tuple[int, int], float]) -> Ablations:
    """Return ablations with this loss of accuracy by (frequency, modulus), and no other."""
    frequencies = np.zeros(((p - 1) // 2, len(moduli)))
    for (k, q), share in lost.items():
        frequencies[k - 1, moduli.index(q)] = -share
    none = np.zeros((4, len(moduli)))
    return Ablations(1, np.ones(len(moduli)), frequencies, none, np.zeros_like(frequencies), np.zeros(len(none), int))


def test_harmonic_offsets() -> None:
    """Q = 7 of 113: 16.14, 32.29, 48.43, then 113 less these; a loss below what is needed counts for nothing."""
    moduli = (2, 7, 11, 109)
    found = harmonic_offsets(planted(113, moduli, {(56, 2): 0.5, (48, 7): 0.5, (49, 7): 0.27, (1, 7): 0.01}), moduli)
    assert found.keys() == {2, 7}  # 11 needs nothing, and to 109 every frequency is near
    assert found[2] == pytest.approx(0.5 / 56.5)
    near, far = 48.428571 - 48, 49 - 48.428571
    weights = (0.5 - NEEDED_DROP, 0.27 - NEEDED_DROP)
    assert found[7] == pytest.approx((near * weights[0] + far * weights[1]) / sum(weights) * 7 / 113, abs=1e-6)


def test_harmonic_offsets_of_all_frequencies_alike_are_chance() -> None:
    moduli = (7, 11, 13)
    found = harmonic_offsets(planted(113, moduli, {(k, q): 0.5 for k in range(1, 57) for q in moduli}), moduli)
    # It is slightly larger than by chance, since below p/q there is no multiple on one side.
    assert all(0.24 < offset < 0.32 for offset in found.values())


def test_transient_frequencies() -> None:
    through_training = [
        lost(256, [0.0, 0.0], [0.1, 0.3], [0.5, 0.5], [0.01, 0.01], [0.4, 0]),
        lost(512, [0.0, 0.0], [0.3, 0.5], [0.5, 0.5], [0.01, 0.01], [0, 0]),
        lost(768, [0.5, 0.5], [0.1, 0.1], [0.2, 0.2], [0.0, 0.0], [0, 0]),
    ]
    # 2: 0.4 of accuracy at 512, a quarter of it at the end. 1 is needed now, 3 still, 4 never was. 5 by a masked task.
    assert transient_frequencies(through_training, [True, True]) == {2: 512, 5: 256}
    assert transient_frequencies(through_training, [False, True]) == {2: 512}
    assert transient_frequencies([], [True]) == {}
    assert transient_frequencies(through_training[:1], [True, True]) == {}
