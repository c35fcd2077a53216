"""The optimizer: AdamW on gradients whose slow component is amplified by Grokfast (3.4, Eq. 13), and its variants.

docs/explanation/training-step.md has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from miiii_search.experiment.switches import PAPER, Switches
from miiii_search.training.constraints import freeze_embeddings, orthogonal_gradient, rate_factors, weight_ceiling
from miiii_search.training.muon import muon

Array = jax.Array


class GrokfastState(NamedTuple):
    """The state of the filter: the number of updates, and the exponential moving average of the gradients."""

    updates: Array
    average: Any


def grokfast_ema(
    alpha: Array | float, amplitude: Array | float, start: str = "first-gradient"
) -> optax.GradientTransformation:
    """Return Grokfast's EMA filter: e_t = α e_{t−1} + (1−α) g_t, with output g_t + λ e_t.

    Source: Lee et al. (2024), arXiv 2405.20233, algorithm 1. Also Eq. 13, whose time indices are a misprint.

    Args:
        alpha: The decay α of the average. It may be traced.
        amplitude: The factor λ. It may be traced; 0 switches the filter off exactly.
        start: The initial average: `first-gradient` for e_0 = g_0, or `zero` as in the paper's public code.
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
    *,
    switches: Switches = PAPER,
    option_values: Mapping[str, Array | float] = MappingProxyType({}),
) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer of a run: Grokfast's filter, then AdamW with β1 = 0.9, β2 = 0.98 and ε = 1e-8.

    The switches replace AdamW, or add steps before and after. All numbers may be traced, so that each lane has its own.

    Args:
        learning_rate: The learning rate of AdamW.
        weight_decay: The weight decay of AdamW.
        grokfast_lambda: The factor λ of the filter.
        grokfast_alpha: The decay α of the filter.
        grokfast_start: The initial average of the filter; see `grokfast_ema`.
        switches: The parts of the training step. The defaults are the paper's.
        option_values: The numbers that the switches need, by name; see `Switches.traced`.

    Returns:
        The optimizer. Its `update` also takes the `streak` of the lane, which only `freeze_embeddings` uses.
    """
    steps = [
        grokfast_ema(grokfast_alpha, grokfast_lambda, grokfast_start),
        _descent(learning_rate, weight_decay, switches, option_values),
    ]
    if switches.gradient_projection == "orthogonal":
        steps.insert(0, orthogonal_gradient())
    if switches.rate_factors:
        steps.append(rate_factors(option_values["embedding_rate_factor"], option_values["unembedding_rate_factor"]))
    if switches.weight_ceiling != "none":
        steps.append(weight_ceiling(option_values["weight_ceiling_ratio"], switches.weight_ceiling))
    if switches.freeze_embeddings == "solved":
        steps.append(freeze_embeddings())
    return optax.with_extra_args_support(optax.chain(*steps))


def _descent(
    learning_rate: Array | float,
    weight_decay: Array | float,
    switches: Switches,
    option_values: Mapping[str, Array | float],
) -> optax.GradientTransformation:
    """Return the optimizer without the filter; see `make_optimizer`."""
    beta2 = option_values["adam_beta2"] if switches.adam_beta2 else 0.98
    adamw = optax.adamw(learning_rate, b1=0.9, b2=beta2, eps=1e-8, weight_decay=weight_decay)
    if switches.optimizer == "muon":
        return muon(
            option_values["muon_learning_rate"],
            option_values["muon_weight_decay"],
            option_values["muon_momentum"],
            adamw,
        )
    if switches.optimizer == "lion":
        return optax.lion(
            option_values["lion_learning_rate"],
            b1=option_values["lion_beta1"],
            b2=option_values["lion_beta2"],
            weight_decay=option_values["lion_weight_decay"],
        )
    return adamw
