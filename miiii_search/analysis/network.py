"""The trained network in NumPy, in which anything can be taken out between two layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Weights = Mapping[str, NDArray[Any]]
"""Name → array, with the names and shapes of `experiment.model.Transformer`."""

Hook = Callable[[Floats], Floats]
Hooks = Mapping[str, Hook]
"""Name of an activation → what it is replaced by."""

HOOK_NAMES = ("attention", "head_output", "neurons")


@dataclass(frozen=True)
class Activations:
    """At ŷ, a column a sample, named as in `Transformer.__call__`; in the precision of the weights."""

    attention: Floats  # [heads, 3, n], from ŷ to x0, x1, ŷ
    head_output: Floats  # [heads, d_head, n], before the output projection
    residual_middle: Floats  # [d, n]
    neurons: Floats  # [4d, n], after ReLU
    residual_final: Floats  # [d, n]
    logits: Floats  # [Σq, n]


def grid(p: int) -> NDArray[np.intp]:
    """Every (x0, x1), x0 the slower `[p², 2]`: what is computed for them reshapes to `[..., x0, x1]`."""
    return np.stack(np.meshgrid(np.arange(p), np.arange(p), indexing="ij"), axis=-1).reshape(-1, 2)


def forward(weights: Weights, x: NDArray[np.integer[Any]], hooks: Hooks | None = None) -> Activations:
    """Eq. 7 to 11 for the digits `x` `[n, 2]`, without dropout.

    A hook gets the activation of its name (`HOOK_NAMES`) and returns what takes its place. Raises `ValueError` for
    another name.
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
    reader = reader.astype(token.dtype)  # NumPy's √ is float64
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
    neurons = hooked("neurons", np.maximum(before_relu, 0, out=before_relu))  # the largest array of most networks
    final = middle + weights["feed_forward_out"].T @ neurons
    return Activations(attention, head_output, middle, neurons, final, weights["unembedding"].T @ final)


def _softmax(scores: Floats) -> Floats:
    """Over the second axis."""
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalized: Floats = e / e.sum(axis=1, keepdims=True)
    return normalized


def n_heads(weights: Weights) -> int:
    """The number of attention heads."""
    return int(weights["query"].shape[1])
