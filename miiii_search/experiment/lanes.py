"""Lanes: K runs of one shape on one device, each with its own clock."""

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

from miiii_search.experiment.program import MAX_EVALUATIONS, LaneState, Program, ProgramKey
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.telemetry import Floats, Record

PartitionSpec: Any = jax.sharding.PartitionSpec
_abstract: Any = jax.ShapeDtypeStruct
Array = jax.Array
Snapshot = dict[str, np.ndarray[Any, Any]]
"""A lane's state on the host: name → array. What a checkpoint holds."""

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""The widths of batched programs: steps, so that growing costs few compilations and wastes few lanes."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    epoch: int
    solved_epoch: int | None
    """The first epoch of the streak that solved the run."""
    failed_epoch: int | None
    """The first epoch whose loss was not finite."""
    ended: bool


class Lanes:
    """Runs that share a program: admit, train, snapshot, release.

    On a CPU one program of one lane serves all lanes, one after the other: batched matrix products are slower
    there, nothing is compiled when lanes come and go, and a lane's result is the same, bit for bit, however many
    neighbours it has. (Where cores would idle, several `Lanes` train beside each other, see `Trainer`.) Elsewhere
    lanes are batched: one program maps over a lane axis, whose width follows demand in the steps of `WIDTHS`. The
    axis is split over the `devices`, which have nothing to say to each other.

    Not for use by several threads at once; several `Lanes` may share a `program`.
    """

    def __init__(
        self,
        key: ProgramKey,
        batched: bool | None = None,
        program: Program | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.program = program or Program(key)
        batched = jax.default_backend() != "cpu" if batched is None else batched
        self._store: _Looped | _Batched
        self._store = _Batched(self.program, devices or jax.devices()) if batched else _Looped(self.program)
        self._progress: dict[int, Progress] = {}

    def __len__(self) -> int:
        """The lanes in use."""
        return len(self._progress)

    def prepare(self, lanes: int, wait: bool = True) -> bool:
        """Compiles what so many lanes need, in a thread of its own; True once it is there."""
        return self._store.prepare(lanes, wait)

    def admit(self, experiment: Experiment, hyperparameters: Hyperparameters, snapshot: Snapshot | None = None) -> int:
        """Gives a run a lane, from its first epoch or from a snapshot, and returns the lane's index.

        Raises `ValueError` if the run needs another program, or if the snapshot is not one of this shape.
        """
        state = self.program.init(experiment, hyperparameters)
        if snapshot is not None:
            state = _restore(state, snapshot)
        lane = next(k for k in range(len(self) + 1) if k not in self._progress)
        self._store.put(lane, state)
        self._progress[lane] = _progress(jax.device_get(_scalars(self.program, state)))
        return lane

    def train(self, evaluations: int) -> dict[int, Record]:
        """Trains all lanes for so many evaluation intervals (`MAX_EVALUATIONS` at most), or to their end.

        Returns what each lane recorded.
        """
        rows = self.start(evaluations)
        return {lane: rows.record(lane) for lane in self._progress}

    def start(self, evaluations: int) -> Rows:
        """`train`, but what was recorded is still on its way to the host when this returns."""
        if not 1 <= evaluations <= MAX_EVALUATIONS:
            raise ValueError(f"evaluations must be between 1 and {MAX_EVALUATIONS}, but is {evaluations}")
        self._store.prepare(len(self), wait=True)
        progress, rows = self._store.train(list(self._progress), evaluations)
        self._progress |= progress
        return rows

    def progress(self, lane: int) -> Progress:
        """Where the run in this lane stands."""
        return self._progress[lane]

    def final(self, lane: int) -> dict[str, Floats]:
        """`train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` of each task, without dropout.

        The test split is touched once, when the run has ended.
        """
        final: dict[str, Floats] = jax.device_get(self.program.final(self._store.get(lane)))
        return final

    def spectrum(self, lane: int) -> Floats:
        """The neurons' mean Fourier magnitudes `[p, p // 2 + 1]`, see `Program.spectrum`."""
        return np.asarray(self.program.spectrum(self._store.get(lane)))

    def weights(self, lane: int) -> Snapshot:
        """The weights of the run in this lane, by name."""
        return {name: np.asarray(array) for name, array in self._store.get(lane).weights.items()}

    def snapshot(self, lane: int) -> Snapshot:
        """Everything that `admit` needs to go on from here, exactly."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(self._store.get(lane))
        return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}

    def bytes_per_lane(self) -> int | None:
        """What a lane takes on its device while it trains, by the compiler's account; None if it gives none."""
        return self._store.bytes_per_lane()

    def release(self, lane: int) -> None:
        """Frees the lane."""
        del self._progress[lane]
        self._store.drop(lane)


def width_for(lanes: int, devices: int = 1) -> int:
    """The narrowest program that holds so many lanes, as many on each device; beyond the steps, a multiple."""
    on_each = -(-lanes // devices)
    return devices * next((w for w in WIDTHS if w >= on_each), -(-on_each // WIDTHS[-1]) * WIDTHS[-1])


def _scalars(program: Program, state: LaneState) -> dict[str, Array]:
    """The few numbers that the host looks at after a chunk."""
    return {
        "epoch": state.epoch,
        "solved_epoch": state.solved_epoch,
        "failed_epoch": state.failed_epoch,
        "ended": program.has_ended(state),
    }


def _progress(scalars: dict[str, Any]) -> Progress:
    return Progress(
        epoch=int(scalars["epoch"]),
        solved_epoch=int(scalars["solved_epoch"]) or None,
        failed_epoch=int(scalars["failed_epoch"]) or None,
        ended=bool(scalars["ended"]),
    )


def _restore(state: LaneState, snapshot: Snapshot) -> LaneState:
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    restored = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in snapshot:
            raise ValueError(f"the snapshot lacks {name}")
        array = snapshot[name]
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ValueError(
                f"{name} of the snapshot must be {leaf.dtype}{list(leaf.shape)}, but is "
                f"{array.dtype}{list(array.shape)}"
            )
        restored.append(jnp.asarray(array))
    whole: LaneState = jax.tree_util.tree_unflatten(structure, restored)
    return whole


class Rows:
    """What lanes recorded in one chunk, on its way from the device."""

    def __init__(self, of_lanes: dict[int, tuple[dict[str, Array], int, int | None]]) -> None:
        """Of each lane: the arrays, how many rows of them were written, and its index in them if they are batched."""
        self._of_lanes = of_lanes
        for arrays, _, _ in of_lanes.values():
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


Trained = tuple[dict[int, Progress], Rows]


class _Looped:
    """A state a lane; the program of one lane serves them all."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._states: dict[int, LaneState] = {}

    def prepare(self, lanes: int, wait: bool) -> bool:
        self._program.compile()
        return True

    def bytes_per_lane(self) -> int | None:
        return _size(self._program.compiled, 1)

    def put(self, lane: int, state: LaneState) -> None:
        self._states[lane] = state

    def get(self, lane: int) -> LaneState:
        return self._states[lane]

    def drop(self, lane: int) -> None:
        del self._states[lane]

    def train(self, lanes: list[int], evaluations: int) -> Trained:
        progress: dict[int, Progress] = {}
        of_lanes: dict[int, tuple[dict[str, Array], int, int | None]] = {}
        for lane in lanes:
            self._states[lane], rows, done = self._program.train(self._states[lane], evaluations)
            progress[lane] = _progress(jax.device_get(_scalars(self._program, self._states[lane])))
            of_lanes[lane] = (rows, int(done), None)
        return progress, Rows(of_lanes)


class _Batched:
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
        return _size(self.programs[self._width].result(), self._width // self._mesh.size)

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
            return {}, Rows({})
        self._shrink(lanes)
        program = self.programs[self._width].result()
        self._states, rows, done = program(self._states, jnp.int32(evaluations), self._data)
        scalars, done = jax.device_get((self._scalars(self._states), done))
        progress = {lane: _progress({name: values[lane] for name, values in scalars.items()}) for lane in lanes}
        # Not the whole buffer, of which a chunk fills little; in steps, since each length is a program.
        written = 1 << (int(done.max()) - 1).bit_length() if done.max() > 1 else 1
        rows = {name: array[:, :written] for name, array in rows.items()}
        return progress, Rows({lane: (rows, int(done[lane]), lane) for lane in lanes})

    @cached_property
    def _scalars(self) -> Any:
        return jax.jit(jax.vmap(lambda state: _scalars(self._program, state)))
