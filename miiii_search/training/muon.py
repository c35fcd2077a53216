"""Muon: steps along the nearest orthogonal matrix of the averaged gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from miiii_search.training.matrices import INPUT_AXES, output_axes

Array = jax.Array


def muon(
    learning_rate: Array | float,
    weight_decay: Array | float,
    momentum: Array | float,
    others: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Return Muon for the hidden matrices, and another optimizer for all other weights.

    A hidden matrix W with m inputs and n outputs becomes W − η (√max(1, n/m) O + λ W). O is the average gradient whose
    singular values five Newton–Schulz iterations have brought near 1. The heads of a matrix are orthogonalized
    together, as in the implementation of Muon's author.

    Source: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon. On grokking: Tveit et al. (2025),
    arXiv 2504.16041. Unlike `optax.contrib.muon`, the other weights get the optimizer as given, so AdamW without
    Nesterov's momentum.

    Args:
        learning_rate: The learning rate η. It may be traced, like the other numbers.
        weight_decay: The decoupled weight decay λ.
        momentum: The decay β of the average of the gradients. Nesterov's form is used.
        others: The optimizer of the embeddings and the unembedding.
    """
    hidden = optax.chain(
        _in_float32(optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=_dimension_numbers)),
        optax.stateless(lambda updates, _: _scale_by_shape(updates)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.partition({"muon": hidden, "other": others}, _label)


def _in_float32(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return a transformation whose matrix products are float32 on every device. A GPU would use 19 bits."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.default_matmul_precision("highest"):
            result: tuple[Any, Any] = transformation.update(updates, state, params)
        return result

    return optax.GradientTransformation(transformation.init, update)


def _label(weights: Any) -> dict[str, str]:
    """Return which optimizer trains each matrix."""
    return {name: "muon" if name in INPUT_AXES else "other" for name in weights}


def _of_hidden(function: Callable[[str, Array], Any], weights: Any) -> dict[str, Any]:
    """Apply a function to the name and the array of each hidden matrix. For Muon, all others are empty nodes."""
    return {name: function(name, w) if name in INPUT_AXES else w for name, w in weights.items()}


def _dimension_numbers(weights: Any) -> dict[str, Any]:
    """Return the axes of the inputs and outputs of each hidden matrix."""
    return _of_hidden(
        lambda name, w: optax.contrib.MuonDimensionNumbers(INPUT_AXES[name], output_axes(name, w)), weights
    )


def _scale_by_shape(updates: Any) -> dict[str, Any]:
    """Multiply the step of each hidden matrix by √max(1, n/m), for m inputs and n outputs."""

    def scale(name: str, update: Array) -> Array:
        inputs = math.prod(update.shape[axis] for axis in INPUT_AXES[name])
        return update * math.sqrt(max(1, update.size / inputs**2))

    return _of_hidden(scale, updates)
