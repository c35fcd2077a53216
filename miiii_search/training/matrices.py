"""The weight arrays as matrices: which axes are inputs, which are outputs, and what each is for."""

from __future__ import annotations

import jax

INPUT_AXES = {
    "query": (0,),
    "key": (0,),
    "value": (0,),
    "attention_output": (0, 1),
    "feed_forward_in": (0,),
    "feed_forward_out": (0,),
}
"""The axes of each hidden matrix over which its product sums. The others are its outputs, all heads together."""

EMBEDDINGS = ("token_embedding", "position_embedding")
"""The tables of one vector per token or position."""

UNEMBEDDING = "unembedding"
"""The matrix from the residual stream to the logits."""


def output_axes(name: str, matrix: jax.Array) -> tuple[int, ...]:
    """Return the axes of a hidden matrix that its product keeps."""
    return tuple(axis for axis in range(matrix.ndim) if axis not in INPUT_AXES[name])


def row_axes(name: str) -> tuple[int, ...]:
    """Return the axes within a row: the vector of a token or position, or the weights of one output."""
    return (1,) if name in EMBEDDINGS else INPUT_AXES.get(name, (0,))
