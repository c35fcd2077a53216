"""The options of the training step in NumPy and float64, written from their publications."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = dict[str, Floats]

INPUTS_AND_OUTPUTS = {
    "query": "i(ho)",
    "key": "i(ho)",
    "value": "i(ho)",
    "attention_output": "(hi)o",
    "feed_forward_in": "io",
    "feed_forward_out": "io",
}
"""Axes of the hidden matrices: i for inputs, o for outputs, h for heads. Axes in parentheses are one."""


def as_matrix(name: str, array: Floats) -> Floats:
    """Return a hidden matrix as `[inputs, outputs]`."""
    pattern = INPUTS_AND_OUTPUTS[name]
    return array.reshape(array.shape[0], -1) if pattern.startswith("i") else array.reshape(-1, array.shape[-1])


class Adam:
    """Algorithm 2 of Loshchilov and Hutter (2019), AdamW."""

    def __init__(self, learning_rate: float, weight_decay: float, beta2: float = 0.98) -> None:
        self.rate, self.decay, self.beta2, self.t = learning_rate, weight_decay, beta2, 0
        self.first: Weights = {}
        self.second: Weights = {}

    def step(self, w: Mapping[str, Floats], g: Mapping[str, Floats]) -> Weights:
        """Return the weights after one step."""
        self.t += 1
        result = {}
        for name in g:
            self.first[name] = 0.9 * self.first.get(name, 0 * g[name]) + 0.1 * g[name]
            self.second[name] = self.beta2 * self.second.get(name, 0 * g[name]) + (1 - self.beta2) * g[name] ** 2
            first = self.first[name] / (1 - 0.9**self.t)
            second = self.second[name] / (1 - self.beta2**self.t)
            result[name] = w[name] - self.rate * (first / (np.sqrt(second) + 1e-8) + self.decay * w[name])
        return result


class Lion:
    """Program 1 of Chen et al. (2023), arXiv 2302.06675."""

    def __init__(self, learning_rate: float, weight_decay: float, beta1: float, beta2: float) -> None:
        self.rate, self.decay, self.beta1, self.beta2 = learning_rate, weight_decay, beta1, beta2
        self.momentum: Weights = {}

    def step(self, w: Mapping[str, Floats], g: Mapping[str, Floats]) -> Weights:
        """Return the weights after one step."""
        result = {}
        for name in g:
            momentum = self.momentum.get(name, 0 * g[name])
            direction = np.sign(self.beta1 * momentum + (1 - self.beta1) * g[name])
            result[name] = w[name] - self.rate * (direction + self.decay * w[name])
            self.momentum[name] = self.beta2 * momentum + (1 - self.beta2) * g[name]
        return result


class Muon:
    """Muon (Jordan et al., 2024) on the hidden matrices, and AdamW on all others.

    The iteration is applied to the singular values: X ← aX + b(XXᵀ)X + c(XXᵀ)²X maps each s to as + bs³ + cs⁵.
    """

    def __init__(self, learning_rate: float, weight_decay: float, momentum: float, others: Adam) -> None:
        self.rate, self.decay, self.beta, self.others = learning_rate, weight_decay, momentum, others
        self.average: Weights = {}
        self.t = 0

    def step(self, w: Mapping[str, Floats], g: Mapping[str, Floats]) -> Weights:
        """Return the weights after one step."""
        self.t += 1
        hidden = [name for name in g if name in INPUTS_AND_OUTPUTS]
        result = self.others.step(w, {name: g[name] for name in g if name not in hidden})
        for name in hidden:
            self.average[name] = self.beta * self.average.get(name, 0 * g[name]) + (1 - self.beta) * g[name]
            # Nesterov's momentum: the average that the next step would have if its gradient were this one.
            ahead = self.beta * self.average[name] / (1 - self.beta ** (self.t + 1))
            ahead = ahead + (1 - self.beta) * g[name] / (1 - self.beta**self.t)
            u, s, v = np.linalg.svd(as_matrix(name, ahead), full_matrices=False)
            s = s / np.sqrt(np.sum(s**2))
            for _ in range(5):
                s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
            inputs, outputs = as_matrix(name, w[name]).shape
            step = np.sqrt(max(1, outputs / inputs)) * (u * s) @ v
            result[name] = w[name] - self.rate * (step.reshape(w[name].shape) + self.decay * w[name])
        return result


def orthogonal_part(w: Floats, g: Floats) -> Floats:
    """Return the gradient without its projection onto the weights (Prieto et al., 2025): v = w / ‖w‖, g − (g·v) v."""
    v = w / np.linalg.norm(w)
    return g - np.sum(g * v) * v


def cut_matrix(w: Floats, initial: Floats, ratio: float) -> Floats:
    """Return the weights, shrunk to at most `ratio` times the initial norm."""
    limit = ratio * np.linalg.norm(initial)
    return w if np.linalg.norm(w) <= limit else w / np.linalg.norm(w) * limit


def cut_rows(name: str, w: Floats, initial: Floats, ratio: float) -> Floats:
    """Return the weights, of which every row is shrunk on its own: a token's vector, or the weights into one output."""
    if name in ("token_embedding", "position_embedding"):
        return np.stack([cut_matrix(row, first, ratio) for row, first in zip(w, initial, strict=True)])
    matrix, first = ((as_matrix(name, a) if name in INPUTS_AND_OUTPUTS else a) for a in (w, initial))
    columns = [cut_matrix(matrix[:, k], first[:, k], ratio) for k in range(matrix.shape[1])]
    return np.stack(columns, axis=1).reshape(w.shape)


def stablemax_loss(logits: Floats, labels: NDArray[np.integer[Any]]) -> float:
    """Return the mean of −log StableMax at the labels (Prieto et al., 2025) for logits `[n, classes]`."""
    s = np.where(logits >= 0, logits + 1, 1 / (1 - np.minimum(logits, 0)))
    probabilities = s / s.sum(axis=1, keepdims=True)
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def softmax_loss(logits: Floats, labels: NDArray[np.integer[Any]]) -> float:
    """Return the mean cross-entropy for logits `[n, classes]`."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())
