"""Batched lane states, whose first axis is split over devices: reading and replacing one lane, and changing the width.

Each of these is a call of one compiled function per device, however many arrays a state has. No devices communicate,
except that lanes which move from one device to another are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

ENDED_EPOCH = np.iinfo(np.int32).max
"""An epoch beyond any budget, so that the program treats a lane as ended."""

Tree = Any
"""A tree of arrays: a lane's state, or a batched one with one more axis."""


class LaneAxis:
    """The lane axis of batched states.

    Args:
        devices: The devices that the axis is split over. Each has the same number of lanes.
    """

    def __init__(self, devices: Sequence[jax.Device]) -> None:
        spec: Any = jax.sharding.PartitionSpec
        self.mesh = Mesh(np.asarray(devices), ("lanes",))
        self.sharding = NamedSharding(self.mesh, spec("lanes"))
        self._devices = list(self.mesh.devices.flat)

    def read(self, states: Tree, width: int, lane: int) -> Tree:
        """Return the state of a lane, on the first device, for which the functions of a single lane are compiled."""
        device, index = self._locate(width, lane)
        return jax.device_put(_read(self._local(states, device), index), self._devices[0])

    def write(self, states: Tree, width: int, lane: int, state: Tree) -> Tree:
        """Replace the state of a lane, in place. `states` cannot be used afterwards."""
        device, index = self._locate(width, lane)
        parts = [self._local(states, each) for each in self._devices]
        changed = self._devices.index(device)
        parts[changed] = _write(parts[changed], index, jax.device_put(state, device))
        return self._assemble(parts, width)

    def resize(self, states: Tree | None, width: int, new_width: int, filler: Tree) -> Tree:
        """Cut or pad the axis.

        Args:
            states: The batched states; None if there are none yet.
            width: The present number of lanes, of all devices together.
            new_width: The wanted number of lanes.
            filler: The state of padded lanes.
        """
        per_device = new_width // len(self._devices)
        parts = []
        for k, device in enumerate(self._devices):
            first, end = k * per_device, min((k + 1) * per_device, width)
            pieces = [jax.device_put(piece, device) for piece in self._slices(states, width, first, end)]
            kept = max(end - first, 0)
            parts.append(_join(pieces, jax.device_put(filler, device), per_device - kept))
        return self._assemble(parts, new_width)

    def _slices(self, states: Tree, width: int, first: int, end: int) -> list[Tree]:
        """Return the lanes from `first` to `end`, one piece for each device that has some of them."""
        pieces = []
        while first < end:
            device, start = self._locate(width, first)
            stop = min(start + end - first, width // len(self._devices))
            pieces.append(_slice(self._local(states, device), start, stop))
            first += stop - start
        return pieces

    def _locate(self, width: int, lane: int) -> tuple[jax.Device, int]:
        """Return the device of a lane, and the lane's index there."""
        per_device = width // len(self._devices)
        return self._devices[lane // per_device], lane % per_device

    def _local(self, states: Tree, device: jax.Device) -> Tree:
        """Return what a device holds of batched states."""

        def part(leaf: jax.Array) -> Any:
            [data] = [shard.data for shard in leaf.addressable_shards if shard.device == device]
            return data

        return jax.tree.map(part, states)

    def _assemble(self, parts: Sequence[Tree], width: int) -> Tree:
        """Return batched states from what each device holds."""
        return jax.tree.map(
            lambda *leaves: jax.make_array_from_single_device_arrays(
                (width, *leaves[0].shape[1:]), self.sharding, list(leaves)
            ),
            *parts,
        )


@jax.jit
def _read(local: Tree, index: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[index], local)


@partial(jax.jit, donate_argnums=0)
def _write(local: Tree, index: int, state: Tree) -> Tree:
    return jax.tree.map(lambda leaf, one: leaf.at[index].set(one), local, state)


@partial(jax.jit, static_argnums=(1, 2))
def _slice(local: Tree, start: int, stop: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[start:stop], local)


@partial(jax.jit, static_argnums=2)
def _join(pieces: Sequence[Tree], filler: Tree, padded: int) -> Tree:
    def join(one: jax.Array, *parts: jax.Array) -> jax.Array:
        return jnp.concatenate([*parts, jnp.broadcast_to(one, (padded, *one.shape))])

    return jax.tree.map(join, filler, *pieces)
