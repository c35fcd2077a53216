"""Options of the training step around the optimizer, as transformations of optax: what a step may change, and how far.

docs/explanation/training-step.md has the equations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from miiii_search.training.matrices import EMBEDDINGS, UNEMBEDDING, row_axes

Array = jax.Array

TINY = 1e-30
"""Smallest norm, or squared norm, to divide by. It only matters for weights that are all zero."""


def orthogonal_gradient() -> optax.GradientTransformation:
    """Return ⊥Grad: of each matrix's gradient g, only the part orthogonal to the weights W, g − (⟨W, g⟩ / ⟨W, W⟩) W.

    Source: Prieto et al. (2025), arXiv 2501.04697. As in their code, each matrix is projected on its own. Unlike there,
    the result is not scaled to the norm of g.
    """

    def project(gradient: Array, weights: Array) -> Array:
        along = jnp.sum(weights * gradient) / jnp.maximum(jnp.sum(weights**2), TINY)
        return gradient - along * weights

    return optax.stateless(lambda gradients, weights: jax.tree.map(project, gradients, weights))


def rate_factors(embedding: Array | float, unembedding: Array | float) -> optax.GradientTransformation:
    """Return the transformation that multiplies the steps of the embeddings and of the unembedding by a factor each.

    Args:
        embedding: The factor of the token and position embeddings. It may be traced, like the other one.
        unembedding: The factor of the unembedding.
    """
    factors = {**dict.fromkeys(EMBEDDINGS, embedding), UNEMBEDDING: unembedding}
    return optax.stateless(
        lambda updates, _: {name: u * factors[name] if name in factors else u for name, u in updates.items()}
    )


class CeilingState(NamedTuple):
    """The norms of the weights before the first epoch, by the name of their matrix."""

    initial_norms: dict[str, Array]


def weight_ceiling(ratio: Array | float, by: str) -> optax.GradientTransformation:
    """Return the transformation after whose steps no norm exceeds its ceiling: W becomes W · min(1, c ‖W₀‖ / ‖W‖).

    Per row, this is the max-norm constraint of Srivastava et al. (2014), *Dropout*, relative to the initial weights W₀.

    Args:
        ratio: The ratio c of a ceiling to the norm before the first epoch. It may be traced; infinity cuts nothing.
        by: `row` for the norm of each row (see `row_axes`), or `matrix` for the norm of each whole matrix.
    """

    def norms(weights: dict[str, Array]) -> dict[str, Array]:
        return {
            name: jnp.sqrt(jnp.sum(w**2, axis=row_axes(name) if by == "row" else None, keepdims=True))
            for name, w in weights.items()
        }

    def init(weights: Any) -> CeilingState:
        return CeilingState(norms(weights))

    def update(updates: Any, state: CeilingState, weights: Any = None) -> tuple[Any, CeilingState]:
        moved = optax.apply_updates(weights, updates)

        def cut(update: Array, w: Array, initial_norm: Array, norm: Array) -> Array:
            factor = ratio * initial_norm / jnp.maximum(norm, TINY)
            return jnp.where(factor < 1, factor * (w + update) - w, update)

        return jax.tree.map(cut, updates, weights, state.initial_norms, norms(moved)), state

    return optax.GradientTransformation(init, update)


class FreezeState(NamedTuple):
    """Whether the embeddings and the unembedding have stopped changing."""

    frozen: Array


def freeze_embeddings() -> optax.GradientTransformationExtraArgs:
    """Return the transformation that stops the embeddings and the unembedding once every scored task is at the target.

    They stay as they are from then on, even if a task falls below the target again. `update` takes the lane's `streak`
    of evaluations at the target.
    """

    def init(_: Any) -> FreezeState:
        return FreezeState(jnp.zeros((), bool))

    def update(
        updates: Any, state: FreezeState, params: Any = None, *, streak: Array, **_: Any
    ) -> tuple[Any, FreezeState]:
        frozen = state.frozen | (streak > 0)
        ends = (*EMBEDDINGS, UNEMBEDDING)
        return {n: jnp.where(frozen, 0, u) if n in ends else u for n, u in updates.items()}, FreezeState(frozen)

    return optax.GradientTransformationExtraArgs(init, update)
