"""Options of the network's output: functions of the logits, before the softmax of the loss.

docs/explanation/training-step.md has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from miiii_search.experiment.switches import Switches

Array = jax.Array


def log_stable(x: Array) -> Array:
    """Return log s(x), where s(x) = x + 1 for x ≥ 0, and 1 / (1 − x) otherwise.

    The softmax of log s(x) is StableMax, s(x) / Σ s(x). So the cross-entropy of StableMax is that of these logits.

    Source: Prieto et al. (2025), arXiv 2501.04697.
    """
    # Each branch gets 0 where the other is taken, so that neither has a derivative there.
    positive, negative = jnp.where(x >= 0, x, 0), jnp.where(x < 0, -x, 0)
    return jnp.log1p(positive) - jnp.log1p(negative)


def transform_logits(logits: Array, switches: Switches, option_values: Mapping[str, Array]) -> Array:
    """Return the logits of the loss, of the same shape. Without options these are the network's own.

    Args:
        logits: The logits of the network.
        switches: The options.
        option_values: The numbers that the switches need, by name.
    """
    if switches.temperature:
        logits = logits / option_values["temperature"]
    if switches.output == "stablemax":
        logits = log_stable(logits)
    return logits
