"""The state of a lane: everything that a run is at one epoch, on the device and as arrays on the host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Weights = dict[str, Array]
Arrays = dict[str, np.ndarray[Any, Any]]
"""Arrays on the host, by name: the weights of a run, or the whole state of a lane."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TracedHyperparameters:
    """Numbers that differ between the lanes of a program. Each is a float32 scalar unless stated otherwise."""

    learning_rate: Array
    weight_decay: Array
    grokfast_lambda: Array
    grokfast_alpha: Array
    dropout: Array
    option_values: dict[str, Array] = field(default_factory=dict)
    """Those that the program's switches add, by name; see `Switches.traced`."""
    task_mask: Array | None = None
    """1 for each task in the run's subset and 0 for the others, `[tasks]`. Absent if the experiment has no subset."""

    def annealed(self, factors: Mapping[str, Array]) -> TracedHyperparameters:
        """Return the hyperparameters times their factors, by name.

        The factor of `learning_rate` also applies to `muon_learning_rate` and its like, as does that of `weight_decay`.
        """
        return replace(
            self,
            **{name: getattr(self, name) * factor for name, factor in factors.items()},
            option_values={
                name: value * math.prod(factor for annealed, factor in factors.items() if name.endswith(f"_{annealed}"))
                for name, value in self.option_values.items()
            },
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LaneState:
    """The state of a run at one epoch. Scalars are int32 unless stated otherwise."""

    weights: Weights
    optimizer: Any
    hyperparameters: TracedHyperparameters
    key: Array  # uint32 [2]; epoch t draws from fold_in(key, t)
    epoch: Array  # epochs trained
    streak: Array  # consecutive evaluations at the target
    solved_epoch: Array  # first epoch of the streak that solved the run, 0 before
    failed_epoch: Array  # first epoch whose loss was not finite, 0 if there is none


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run."""

    epoch: int
    """Epochs trained."""
    solved_epoch: int | None
    """The first epoch of the streak that solved the run."""
    failed_epoch: int | None
    """The first epoch whose loss was not finite."""
    ended: bool
    """Whether the run is solved, has failed, or has trained all of its epochs."""


def state_to_arrays(state: LaneState) -> Arrays:
    """Copy the state of a lane to the host.

    Returns:
        The arrays by name, such as `weights.query` or `epoch`. Checkpoints store these names.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {_stored_name(path): np.asarray(leaf) for path, leaf in leaves}


def state_from_arrays(arrays: Arrays, like: LaneState) -> LaneState:
    """Return the state that `state_to_arrays` copied.

    Args:
        arrays: The arrays by name.
        like: A state of the same program.

    Raises:
        ValueError: An array is missing, or has another shape or type than in `like`.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    restored = []
    for path, leaf in leaves:
        name = _stored_name(path)
        if name not in arrays:
            raise ValueError(f"the state lacks {name}")
        array = arrays[name]
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ValueError(
                f"{name} of the state must be {leaf.dtype}{list(leaf.shape)}, but is {array.dtype}{list(array.shape)}"
            )
        restored.append(jnp.asarray(array))
    state: LaneState = jax.tree_util.tree_unflatten(structure, restored)
    return state


def _stored_name(path: Any) -> str:
    """Return the name of a leaf in checkpoints. There, the hyperparameters still have an earlier name, `knobs`."""
    first, *rest = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
    return ".".join(["knobs" if first == "hyperparameters" else first, *rest])
