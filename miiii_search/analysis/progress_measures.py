"""Progress measures of Nanda et al. for the task `nanda` (arXiv 2301.05217, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.fourier import n_frequencies
from miiii_search.analysis.network import Floats, Weights, forward, grid
from miiii_search.analysis.scores import grid_labels, losses, training_mask
from miiii_search.experiment.spec import Experiment

KEY_ENERGY_SHARE = 0.95
"""Key frequencies are the fewest that have this share of the logits' energy at frequencies of x0 + x1."""


@dataclass(frozen=True)
class ProgressMeasures:
    """Losses at one epoch, in nats."""

    epoch: int
    train: float
    """On the training samples."""
    held_out: float
    """On all other samples."""
    restricted: float
    """On all samples, from logits with only the key frequencies and the constant: the general solution."""
    excluded: float
    """On the training samples, from logits without the key frequencies: what was memorised."""


def digit_sum_waves(p: int) -> NDArray[np.float64]:
    """Return cos and sin of each frequency of x0 + x1 over the grid, orthonormal `[(p − 1) / 2, 2, p²]`."""
    x = grid(p).sum(axis=1)
    angle = 2 * np.pi * np.arange(1, n_frequencies(p) + 1)[:, None] * x / p
    waves: NDArray[np.float64] = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(2) / p
    return waves


def digit_sum_energies(logits: Floats) -> NDArray[np.float64]:
    """Return the energy of the logits `[p, p²]` at each frequency of x0 + x1 `[(p − 1) / 2]`."""
    p = len(logits)
    components = np.einsum("kwn,cn->kwc", digit_sum_waves(p), logits.astype(np.float64), optimize=True)
    energies: NDArray[np.float64] = (components**2).sum(axis=(1, 2))
    return energies


def key_frequencies(weights: Weights) -> list[int]:
    """Return the frequencies with which a trained network computes its logits, strongest first."""
    p = len(weights["token_embedding"]) - 1
    energies = digit_sum_energies(forward(weights, grid(p)).logits)
    order = np.argsort(energies)[::-1]
    enough = np.searchsorted(np.cumsum(energies[order]), KEY_ENERGY_SHARE * energies.sum()) + 1
    return [int(k) + 1 for k in order[:enough]]


def compute_progress_measures(
    experiment: Experiment, weights: Weights, keys: Sequence[int], epoch: int
) -> ProgressMeasures:
    """Compute the progress measures at one epoch.

    Args:
        experiment: The experiment, with the task `nanda`.
        weights: The weights at the epoch.
        keys: The key frequencies, from the final weights.
        epoch: The epoch.

    Raises:
        ValueError: The task is not `nanda`.
    """
    if experiment.task != "nanda":
        raise ValueError(f"progress measures are for the task nanda, not for {experiment.task}")
    p = experiment.p
    y, trained = grid_labels(experiment).reshape(1, -1), training_mask(experiment).ravel()
    logits = forward(weights, grid(p)).logits.astype(np.float64)
    waves = digit_sum_waves(p)[np.asarray(keys) - 1].reshape(-1, p * p)
    key_logits = (logits @ waves.T) @ waves
    constant = logits.mean(axis=1, keepdims=True)

    def loss(of: NDArray[np.float64], samples: NDArray[np.bool_]) -> float:
        return float(losses(of[:, samples], y[:, samples], (p,))[0])

    return ProgressMeasures(
        epoch,
        loss(logits, trained),
        loss(logits, ~trained),
        loss(key_logits + constant, np.ones_like(trained)),
        loss(logits - key_logits, trained),
    )
