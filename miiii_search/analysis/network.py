"""The trained network in NumPy, with hooks that replace activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Weights = Mapping[str, NDArray[Any]]
"""Weight matrices by name, with the names and shapes of `training.model.Transformer`."""

Hook = Callable[[Floats], Floats]
Hooks = Mapping[str, Hook]
"""Functions that replace an activation, by the activation's name."""

HOOK_NAMES = ("attention", "head_output", "neurons")


@dataclass(frozen=True)
class Activations:
    """Activations at ŷ, with one sample per column, in the precision of the weights.

    The names are those in `Transformer.__call__`.
    """

    attention: Floats  # [heads, 3, n], from ŷ to x0, x1, ŷ
    head_output: Floats  # [heads, d_head, n], before the output projection
    residual_middle: Floats  # [d, n]
    neurons: Floats  # [4d, n], after ReLU
    residual_final: Floats  # [d, n]
    logits: Floats  # [Σq, n]


def grid(p: int) -> NDArray[np.intp]:
    """Return all pairs (x0, x1) of digits `[p², 2]`, where x1 changes fastest.

    An array computed for them reshapes to `[..., x0, x1]`.
    """
    return np.stack(np.meshgrid(np.arange(p), np.arange(p), indexing="ij"), axis=-1).reshape(-1, 2)


def forward(weights: Weights, x: NDArray[np.integer[Any]], hooks: Hooks | None = None) -> Activations:
    """Compute the network's activations, without dropout (Eq. 7 to 11).

    Args:
        weights: The weights.
        x: The digits `[n, 2]`.
        hooks: Functions by the name of an activation, one of `HOOK_NAMES`. Each gets the activation and returns its
            replacement.

    Raises:
        ValueError: There is no hook of such a name.
    """
    hooks = dict(hooks or {})
    if unknown := hooks.keys() - set(HOOK_NAMES):
        raise ValueError(f"there is no hook {sorted(unknown)}; one of {', '.join(HOOK_NAMES)}")

    def hooked(name: str, value: Floats) -> Floats:
        return hooks[name](value) if name in hooks else value

    token, position = weights["token_embedding"], weights["position_embedding"]
    digits = token[:-1] + position[:2, None]  # [2, p, d]
    answer = token[-1] + position[2]  # [d]
    query, key, value = weights["query"], weights["key"], weights["value"]  # [d, heads, d_head]
    reader = np.einsum("dhk,hk->hd", key, np.einsum("d,dhk->hk", answer, query)) / np.sqrt(query.shape[2])
    reader = reader.astype(token.dtype)  # np.sqrt made it float64
    scores = np.einsum("hd,ipd->hip", reader, digits)  # [heads, 2, p]
    values = np.einsum("dhk,ipd->ihkp", value, digits)  # [2, heads, d_head, p]
    own = np.broadcast_to((reader @ answer)[:, None], (len(reader), len(x)))
    attention = hooked("attention", _softmax(np.stack([scores[:, 0, x[:, 0]], scores[:, 1, x[:, 1]], own], axis=1)))
    head_output = hooked(
        "head_output",
        attention[:, 0, None] * values[0][..., x[:, 0]]
        + attention[:, 1, None] * values[1][..., x[:, 1]]
        + attention[:, 2, None] * np.einsum("d,dhk->hk", answer, value)[..., None],
    )
    write = weights["attention_output"].reshape(-1, len(answer))  # [heads · d_head, d]
    middle = answer[:, None] + write.T @ head_output.reshape(len(write), -1)
    before_relu = weights["feed_forward_in"].T @ middle
    neurons = hooked("neurons", np.maximum(before_relu, 0, out=before_relu))  # in place: this is the largest array
    final = middle + weights["feed_forward_out"].T @ neurons
    return Activations(attention, head_output, middle, neurons, final, weights["unembedding"].T @ final)


def _softmax(scores: Floats) -> Floats:
    """Return the softmax over the second axis."""
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalized: Floats = e / e.sum(axis=1, keepdims=True)
    return normalized


def n_heads(weights: Weights) -> int:
    """Return the number of attention heads."""
    return int(weights["query"].shape[1])
