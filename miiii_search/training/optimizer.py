"""AdamW on gradients whose slow component is amplified (3.4, Eq. 13)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


class GrokfastState(NamedTuple):
    """The number of updates made, and the exponential moving average of the gradients."""

    updates: Array
    average: Any


def grokfast_ema(
    alpha: Array | float, amplitude: Array | float, start: str = "first-gradient"
) -> optax.GradientTransformation:
    """Grokfast's EMA filter: e_t = α e_{t−1} + (1−α) g_t; the output is g_t + λ e_t.

    The average starts at the first gradient, e_0 = g_0, or with `start` "zero" at 0, as in the paper's public code.
    `alpha` and `amplitude` may be traced; an `amplitude` λ of 0 is exactly off.
    Source: Lee et al. (2024), arXiv 2405.20233, algorithm 1; Eq. 13, whose time indices are a misprint.
    """

    def init(params: Any) -> GrokfastState:
        return GrokfastState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: GrokfastState, params: Any = None) -> tuple[Any, GrokfastState]:
        first = (state.updates == 0) & (start == "first-gradient")
        average = jax.tree.map(lambda e, g: jnp.where(first, g, alpha * e + (1 - alpha) * g), state.average, gradients)
        filtered = jax.tree.map(lambda g, e: g + amplitude * e, gradients, average)
        return filtered, GrokfastState(state.updates + 1, average)

    return optax.GradientTransformation(init, update)


def make_optimizer(
    learning_rate: Array | float,
    weight_decay: Array | float,
    grokfast_lambda: Array | float,
    grokfast_alpha: Array | float,
    grokfast_start: str = "first-gradient",
) -> optax.GradientTransformation:
    """The paper's optimizer: the filter, then AdamW with β1 = 0.9, β2 = 0.98, ε = 1e-8 at a constant rate.

    The numbers may be traced: they are a lane's own.
    """
    return optax.chain(
        grokfast_ema(grokfast_alpha, grokfast_lambda, grokfast_start),
        optax.adamw(learning_rate, b1=0.9, b2=0.98, eps=1e-8, weight_decay=weight_decay),
    )
