"""Conversion to TransformerLens: names, shapes and configuration of a `HookedTransformer`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float32]]


def to_state_dict(weights: Weights) -> dict[str, NDArray[Any]]:
    """Return the weights under HookedTransformer's names, with the biases and buffers that strict loading needs.

    The network has no biases, so they are zero. The head is the first axis of `W_Q`, `W_K` and `W_V` `[heads, d,
    d_head]`.
    """
    d_model, n_heads, d_head = weights["query"].shape
    d_mlp, n_logits = weights["feed_forward_in"].shape[1], weights["unembedding"].shape[1]
    n_positions = len(weights["position_embedding"])
    attention: dict[str, NDArray[Any]] = {
        "W_Q": _heads_first(weights["query"]),
        "W_K": _heads_first(weights["key"]),
        "W_V": _heads_first(weights["value"]),
        "W_O": weights["attention_output"],
        "b_Q": _zeros(n_heads, d_head),
        "b_K": _zeros(n_heads, d_head),
        "b_V": _zeros(n_heads, d_head),
        "b_O": _zeros(d_model),
        # Buffers: the causal mask from query (row) to key, and the score of a masked key. TransformerLens 2 accepts
        # only a mask of this shape; TransformerLens 3 computes its own.
        "mask": np.tri(n_positions, dtype=np.bool_),
        "IGNORE": np.array(-np.inf, np.float32),
    }
    feed_forward = {
        "W_in": weights["feed_forward_in"],
        "b_in": _zeros(d_mlp),
        "W_out": weights["feed_forward_out"],
        "b_out": _zeros(d_model),
    }
    return {
        "embed.W_E": weights["token_embedding"],
        "pos_embed.W_pos": weights["position_embedding"],
        **{f"blocks.0.attn.{name}": array for name, array in attention.items()},
        **{f"blocks.0.mlp.{name}": array for name, array in feed_forward.items()},
        "unembed.W_U": weights["unembedding"],
        "unembed.b_U": _zeros(n_logits),
    }


def to_config(weights: Weights) -> dict[str, Any]:
    """Return the fields of `HookedTransformerConfig` for this network, as plain data.

    Attention is causal there. This makes no difference, since only the output at ŷ is read, which is the last position.
    """
    d_model, n_heads, d_head = weights["query"].shape
    return {
        "n_layers": 1,
        "n_ctx": len(weights["position_embedding"]),
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": d_head,
        "d_mlp": weights["feed_forward_in"].shape[1],
        "d_vocab": len(weights["token_embedding"]),
        "d_vocab_out": weights["unembedding"].shape[1],
        "act_fn": "relu",
        "normalization_type": None,
        "positional_embedding_type": "standard",
        "attention_dir": "causal",
        # Attention scores are divided by attn_scale.
        "use_attn_scale": True,
        "attn_scale": math.sqrt(d_head),
    }


def _heads_first(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    # Contiguous, since safetensors writes the memory of a transposed array in its original order.
    return np.ascontiguousarray(weights.transpose(1, 0, 2))  # [d, heads, d_head] to [heads, d, d_head]


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)
