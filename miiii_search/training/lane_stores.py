"""Stores of lane states, each with the program that trains them: one by one, or in a batch over several devices."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from miiii_search.experiment.record import Record
from miiii_search.training.lane_axis import ENDED_EPOCH, LaneAxis
from miiii_search.training.lane_state import Array, LaneState, RunProgress
from miiii_search.training.numerics import pinned
from miiii_search.training.program import Program, bytes_per_lane, lower_lanes

PartitionSpec: Any = jax.sharding.PartitionSpec

LANE_WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Widths of batched programs. There are few, so that growing costs few compilations, but they waste few lanes."""


def width_for(lanes: int, devices: int = 1) -> int:
    """Return the width of the narrowest program for a number of lanes.

    Each device gets the same number of lanes: one of `LANE_WIDTHS`, or a multiple of the largest.
    """
    per_device = -(-lanes // devices)
    return devices * next(
        (w for w in LANE_WIDTHS if w >= per_device), -(-per_device // LANE_WIDTHS[-1]) * LANE_WIDTHS[-1]
    )


def progress_scalars(program: Program, state: LaneState) -> dict[str, Array]:
    """Return the scalars that the host reads after a chunk. `progress_from_scalars` reads them."""
    return {
        "epoch": state.epoch,
        "solved_epoch": state.solved_epoch,
        "failed_epoch": state.failed_epoch,
        "ended": program.has_ended(state, program.data["end"]),
    }


def progress_from_scalars(scalars: dict[str, Any]) -> RunProgress:
    """Return the progress of a run from scalars on the host."""
    return RunProgress(
        epoch=int(scalars["epoch"]),
        solved_epoch=int(scalars["solved_epoch"]) or None,
        failed_epoch=int(scalars["failed_epoch"]) or None,
        ended=bool(scalars["ended"]),
    )


class PendingRecords:
    """The records of all lanes for one chunk, while they are copied from the device to the host.

    Args:
        by_lane: For each lane the arrays, the number of rows that were written, and the lane's index in the arrays.
            The index is None if the lane shares its arrays with no other lane.
    """

    def __init__(self, by_lane: dict[int, tuple[dict[str, Array], int, int | None]]) -> None:
        self._by_lane = by_lane
        for arrays in {id(arrays): arrays for arrays, _, _ in by_lane.values()}.values():  # batched lanes share them
            for array in arrays.values():
                array.copy_to_host_async()

    def evaluations(self, lane: int) -> int:
        """Return the number of rows that a lane wrote."""
        return self._by_lane[lane][1]

    def record(self, lane: int) -> Record:
        """Return the rows of a lane. Wait until they are on the host."""
        arrays, done, index = self._by_lane[lane]
        where = slice(0, done) if index is None else (index, slice(0, done))
        return Record(**{name: np.asarray(array)[where] for name, array in arrays.items()})


@partial(jax.jit, static_argnums=1)
def _first_rows(rows: dict[str, Array], n: int) -> dict[str, Array]:
    return {name: array[:, :n] for name, array in rows.items()}


TrainedChunk = tuple[dict[int, RunProgress], PendingRecords]
"""The progress of each lane after a chunk, and what they recorded."""


class SequentialLanes:
    """One state per lane. The program of one lane trains them one after the other."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._states: dict[int, LaneState] = {}

    def prepare(self, lanes: int, wait: bool) -> bool:
        """Compile what training a number of lanes needs. Return whether it is compiled."""
        self._program.compile()
        return True

    def bytes_per_lane(self) -> int | None:
        """Return the bytes per lane of the program, or None if unknown."""
        return bytes_per_lane(self._program.compiled, 1)

    def needs_wider_program(self, lanes: int) -> bool:
        """Return whether a number of lanes needs a wider program than the current one."""
        return False

    def put(self, lane: int, state: LaneState) -> None:
        """Store the state of a lane."""
        self._states[lane] = state

    def get(self, lane: int) -> LaneState:
        """Return the state of a lane."""
        return self._states[lane]

    def drop(self, lane: int) -> None:
        """Free a lane."""
        del self._states[lane]

    def clear(self) -> None:
        """Free all lanes, even if an error left their states invalid."""
        self._states = {}

    def train(self, lanes: list[int], evaluations: int) -> TrainedChunk:
        """Train lanes for a number of evaluation intervals, or until their runs end."""
        progress: dict[int, RunProgress] = {}
        by_lane: dict[int, tuple[dict[str, Array], int, int | None]] = {}
        for lane in lanes:
            self._states[lane], rows, done = self._program.train(self._states[lane], evaluations)
            progress[lane] = progress_from_scalars(jax.device_get(progress_scalars(self._program, self._states[lane])))
            by_lane[lane] = (rows, int(done), None)
        return progress, PendingRecords(by_lane)


class VmappedLanes:
    """One batched state of all lanes, whose first axis is split over the devices. The program maps over that axis."""

    def __init__(self, program: Program, devices: Sequence[jax.Device]) -> None:
        self._program = program
        self._axis = LaneAxis(devices)
        self._states: LaneState | None = None
        self._width = 0
        self._reserved = 0
        """The width for which lanes are about to be put."""
        self._data = jax.device_put(program.data, NamedSharding(self._axis.mesh, PartitionSpec()))
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compiler")
        self.programs: dict[int, Future[Any]] = {}

    def prepare(self, lanes: int, wait: bool) -> bool:
        """Compile what training a number of lanes needs. Return whether it is compiled."""
        self._reserved = self._width_for(lanes)
        width = max(self._reserved, self._width)
        self._request(width)
        if wait:
            self.programs[width].result()
        return self.programs[width].done()

    def bytes_per_lane(self) -> int | None:
        """Return the bytes per lane of the program, or None if unknown."""
        compiled = {w: f.result() for w, f in self.programs.items() if f.done() and f.exception() is None}
        width = self._width if self._width in compiled else min(compiled, default=0)
        return bytes_per_lane(compiled[width], width // self._axis.mesh.size) if width else None

    def needs_wider_program(self, lanes: int) -> bool:
        """Return whether a number of lanes needs a wider program than the current one."""
        return 0 < self._width < self._width_for(lanes)

    def put(self, lane: int, state: LaneState) -> None:
        """Store the state of a lane."""
        if lane >= self._width:
            self._resize(max(self._width_for(lane + 1), self._reserved), state)
        self._states = self._axis.write(self._states, self._width, lane, state)

    def get(self, lane: int) -> LaneState:
        """Return the state of a lane."""
        state: LaneState = self._axis.read(self._states, self._width, lane)
        return state

    def clear(self) -> None:
        """Free all lanes, even if an error left their states invalid."""
        self._states, self._width = None, 0
        # Compilations that failed, perhaps for lack of memory, may succeed later.
        self.programs = {w: f for w, f in self.programs.items() if not (f.done() and f.exception())}

    def drop(self, lane: int) -> None:
        """Free a lane."""
        assert self._states is not None
        epoch = self._axis.write(self._states.epoch, self._width, lane, jnp.int32(ENDED_EPOCH))
        self._states = replace(self._states, epoch=epoch)

    def _request(self, width: int) -> None:
        """Start compiling the program of a width in a thread, unless that was requested before."""
        if width not in self.programs:
            self.programs[width] = self._compiler.submit(self._compile, width)

    def _shrink(self, lanes: list[int]) -> None:
        """Change to a program of at most half the width if it holds all lanes and is compiled."""
        width = self._width_for(max(lanes) + 1)
        if 2 * width <= self._width:
            self._request(width)
            if self.programs[width].done():
                self._resize(width, self.get(0))

    def _width_for(self, lanes: int) -> int:
        return width_for(max(lanes, 1), self._axis.mesh.size)

    def _resize(self, width: int, filler: LaneState) -> None:
        """Cut or pad the lane axis. Padded lanes count as ended."""
        idle = replace(filler, epoch=jnp.int32(ENDED_EPOCH))
        self._states = self._axis.resize(self._states, self._width, width, idle)
        self._width = width

    @pinned
    def _compile(self, width: int) -> Any:
        self._program.compile_in_background()
        return lower_lanes(self._program, self._axis.mesh, width).compile()

    def train(self, lanes: list[int], evaluations: int) -> TrainedChunk:
        """Train lanes for a number of evaluation intervals, or until their runs end."""
        if not lanes:
            return {}, PendingRecords({})
        self._shrink(lanes)
        program = self.programs[self._width].result()
        self._states, rows, done = program(self._states, jnp.int32(evaluations), self._data)
        scalars, done = jax.device_get((self._scalars(self._states), done))
        progress = {
            lane: progress_from_scalars({name: values[lane] for name, values in scalars.items()}) for lane in lanes
        }
        # Copy only what was written, which is little of the buffer. Powers of two, since each length is a program.
        written = 1 << (int(done.max()) - 1).bit_length() if done.max() > 1 else 1
        rows = _first_rows(rows, written)
        return progress, PendingRecords({lane: (rows, int(done[lane]), lane) for lane in lanes})

    @cached_property
    def _scalars(self) -> Any:
        return jax.jit(jax.vmap(lambda state: progress_scalars(self._program, state)))
