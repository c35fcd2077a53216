"""Where the states of lanes live: one by one, or as one array of all of them, split over devices."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from miiii_search.experiment.record import Record
from miiii_search.training.numerics import pinned
from miiii_search.training.program import LaneState, Program

PartitionSpec: Any = jax.sharding.PartitionSpec
_abstract: Any = jax.ShapeDtypeStruct
Array = jax.Array

LANE_WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""The widths of batched programs: steps, so that growing costs few compilations and wastes few lanes."""


@dataclass(frozen=True)
class RunProgress:
    """Where a run stands."""

    epoch: int
    solved_epoch: int | None
    """The first epoch of the streak that solved the run."""
    failed_epoch: int | None
    """The first epoch whose loss was not finite."""
    ended: bool


def width_for(lanes: int, devices: int = 1) -> int:
    """The narrowest program that holds so many lanes, as many on each device; beyond the steps, a multiple."""
    on_each = -(-lanes // devices)
    return devices * next((w for w in LANE_WIDTHS if w >= on_each), -(-on_each // LANE_WIDTHS[-1]) * LANE_WIDTHS[-1])


def scalars_of(program: Program, state: LaneState) -> dict[str, Array]:
    """The few numbers that the host looks at after a chunk."""
    return {
        "epoch": state.epoch,
        "solved_epoch": state.solved_epoch,
        "failed_epoch": state.failed_epoch,
        "ended": program.has_ended(state),
    }


def progress_of(scalars: dict[str, Any]) -> RunProgress:
    return RunProgress(
        epoch=int(scalars["epoch"]),
        solved_epoch=int(scalars["solved_epoch"]) or None,
        failed_epoch=int(scalars["failed_epoch"]) or None,
        ended=bool(scalars["ended"]),
    )


class PendingRecords:
    """What lanes recorded in one chunk, on its way from the device."""

    def __init__(self, of_lanes: dict[int, tuple[dict[str, Array], int, int | None]]) -> None:
        """Of each lane: the arrays, how many rows of them were written, and its index in them if they are batched."""
        self._of_lanes = of_lanes
        for arrays in {id(arrays): arrays for arrays, _, _ in of_lanes.values()}.values():  # batched lanes share them
            for array in arrays.values():
                array.copy_to_host_async()

    def evaluations(self, lane: int) -> int:
        """How many rows the lane wrote."""
        return self._of_lanes[lane][1]

    def record(self, lane: int) -> Record:
        """The lane's rows; waits until they have come."""
        arrays, done, index = self._of_lanes[lane]
        where = slice(0, done) if index is None else (index, slice(0, done))
        return Record(**{name: np.asarray(array)[where] for name, array in arrays.items()})


def _size(program: Any, lanes: int) -> int | None:
    """Of one of so many lanes that a compiled program trains on a device, in bytes."""
    memory = program.memory_analysis()
    if memory is None:
        return None
    # States go in and come out in the same memory.
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(size + memory.temp_size_in_bytes) // lanes


Trained = tuple[dict[int, RunProgress], PendingRecords]


class SequentialLanes:
    """A state a lane; the program of one lane serves them all."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._states: dict[int, LaneState] = {}

    def prepare(self, lanes: int, wait: bool) -> bool:
        self._program.compile()
        return True

    def bytes_per_lane(self) -> int | None:
        return _size(self._program.compiled, 1)

    def needs_wider_program(self, lanes: int) -> bool:
        return False

    def put(self, lane: int, state: LaneState) -> None:
        self._states[lane] = state

    def get(self, lane: int) -> LaneState:
        return self._states[lane]

    def drop(self, lane: int) -> None:
        del self._states[lane]

    def clear(self) -> None:
        self._states = {}

    def train(self, lanes: list[int], evaluations: int) -> Trained:
        progress: dict[int, RunProgress] = {}
        of_lanes: dict[int, tuple[dict[str, Array], int, int | None]] = {}
        for lane in lanes:
            self._states[lane], rows, done = self._program.train(self._states[lane], evaluations)
            progress[lane] = progress_of(jax.device_get(scalars_of(self._program, self._states[lane])))
            of_lanes[lane] = (rows, int(done), None)
        return progress, PendingRecords(of_lanes)


class VmappedLanes:
    """One state with a lane axis in front, split over the devices; the program maps over it."""

    def __init__(self, program: Program, devices: Sequence[jax.Device]) -> None:
        self._program = program
        self._mesh = Mesh(np.asarray(devices), ("lanes",))
        self._by_lane = NamedSharding(self._mesh, PartitionSpec("lanes"))
        self._everywhere = NamedSharding(self._mesh, PartitionSpec())
        self._states: LaneState | None = None
        self._width = 0
        self._data = jax.device_put(program.data, self._everywhere)
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiler")
        self.programs: dict[int, Future[Any]] = {}

    def prepare(self, lanes: int, wait: bool) -> bool:
        width = max(self._width_for(lanes), self._width)
        self._request(width)
        if wait:
            self.programs[width].result()
        return self.programs[width].done()

    def bytes_per_lane(self) -> int | None:
        compiled = {w: f.result() for w, f in self.programs.items() if f.done() and f.exception() is None}
        width = self._width if self._width in compiled else min(compiled, default=0)
        return _size(compiled[width], width // self._mesh.size) if width else None

    def needs_wider_program(self, lanes: int) -> bool:
        return 0 < self._width < self._width_for(lanes)

    def put(self, lane: int, state: LaneState) -> None:
        if lane >= self._width:
            self._resize(self._width_for(lane + 1), state)
        self._states = jax.tree.map(lambda leaf, one: self._set(leaf, lane, one), self._states, state)

    def get(self, lane: int) -> LaneState:
        device, index = self._place(lane)

        def take(leaf: Array) -> Array:
            [part] = [shard.data for shard in leaf.addressable_shards if shard.device == device]
            # To the first device, which the functions of a single lane are compiled for.
            moved: Array = jax.device_put(part[index], self._mesh.devices.flat[0])
            return moved

        state: LaneState = jax.tree.map(take, self._states)
        return state

    def clear(self) -> None:
        self._states, self._width = None, 0
        # What could not be compiled, for want of memory too, may be another time.
        self.programs = {w: f for w, f in self.programs.items() if not (f.done() and f.exception())}

    def drop(self, lane: int) -> None:
        # An epoch beyond any budget: the lane has ended and is left alone by the program.
        never = jnp.int32(np.iinfo(np.int32).max)
        self._states = jax.tree_util.tree_map_with_path(
            lambda path, leaf: self._set(leaf, lane, never) if path[0].name == "epoch" else leaf, self._states
        )

    def _place(self, lane: int) -> tuple[jax.Device, int]:
        """The device that a lane is on, and its index there."""
        on_each = self._width // self._mesh.size
        device: jax.Device = self._mesh.devices.flat[lane // on_each]
        return device, lane % on_each

    def _set(self, leaf: Array, lane: int, value: Array) -> Array:
        """One lane's part of a leaf replaced, on its own device: indexing the whole would have all of them talk."""
        device, index = self._place(lane)
        parts = [
            shard.data.at[index].set(jax.device_put(value, device)) if shard.device == device else shard.data
            for shard in leaf.addressable_shards
        ]
        return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)

    def _request(self, width: int) -> None:
        """Has the program of this width compiled, beside whatever runs."""
        if width not in self.programs:
            self.programs[width] = self._compiler.submit(self._compile, width)

    def _shrink(self, lanes: list[int]) -> None:
        """Goes to a program of half the width or less where that holds all lanes, once it is compiled."""
        width = self._width_for(max(lanes) + 1)
        if 2 * width <= self._width:
            self._request(width)
            if self.programs[width].done():
                self._resize(width, self.get(0))

    def _width_for(self, lanes: int) -> int:
        return width_for(max(lanes, 1), self._mesh.size)

    def _resize(self, width: int, filler: LaneState) -> None:
        """Cuts or pads the lane axis; what is padded has ended before it began."""
        idle = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full_like(leaf, np.iinfo(np.int32).max) if path[0].name == "epoch" else leaf,
            filler,
        )
        states = [self.get(k) if k < self._width else idle for k in range(width)]
        self._states = self._split(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
        self._width = width

    def _split(self, states: LaneState) -> LaneState:
        split: LaneState = jax.device_put(states, self._by_lane)
        return split

    @pinned
    def _compile(self, width: int) -> Any:
        self._program.compile_rest()
        mapped = jax.vmap(self._program.train_lane, in_axes=(0, None, None))
        # Each device loops until its own lanes have ended: a plain vmap would have all of them ask each other.
        each = jax.shard_map(
            mapped,
            mesh=self._mesh,
            in_specs=(PartitionSpec("lanes"), PartitionSpec(), PartitionSpec()),
            out_specs=PartitionSpec("lanes"),
            check_vma=False,
        )
        states = jax.tree.map(
            lambda leaf: _abstract((width, *leaf.shape), leaf.dtype, sharding=self._by_lane),
            self._program.abstract_state,
        )
        return jax.jit(each, donate_argnums=0).lower(states, jnp.int32(1), self._data).compile()

    def train(self, lanes: list[int], evaluations: int) -> Trained:
        if not lanes:
            return {}, PendingRecords({})
        self._shrink(lanes)
        program = self.programs[self._width].result()
        self._states, rows, done = program(self._states, jnp.int32(evaluations), self._data)
        scalars, done = jax.device_get((self._scalars(self._states), done))
        progress = {lane: progress_of({name: values[lane] for name, values in scalars.items()}) for lane in lanes}
        # Not the whole buffer, of which a chunk fills little; in steps, since each length is a program.
        written = 1 << (int(done.max()) - 1).bit_length() if done.max() > 1 else 1
        rows = {name: array[:, :written] for name, array in rows.items()}
        return progress, PendingRecords({lane: (rows, int(done[lane]), lane) for lane in lanes})

    @cached_property
    def _scalars(self) -> Any:
        return jax.jit(jax.vmap(lambda state: scalars_of(self._program, state)))
