"""Lanes: K runs of one shape on one device, each with its own clock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miiii_search.experiment.program import MAX_EVALUATIONS, LaneState, Program, ProgramKey
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.telemetry import Floats, Record

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

    On a CPU one program of one lane serves all lanes, each lane in a thread of its own: batched matrix
    products are slower there than one after the other, nothing is compiled when lanes come and go, and a
    lane's result is the same, bit for bit, however many neighbours it has. Elsewhere lanes are batched: one
    program maps over a lane axis, whose width follows demand in the steps of `WIDTHS`.

    Not for use by several threads at once.
    """

    def __init__(self, key: ProgramKey, batched: bool | None = None) -> None:
        self.program = Program(key)
        batched = jax.default_backend() != "cpu" if batched is None else batched
        self._store: _Looped | _Batched = _Batched(self.program) if batched else _Looped(self.program)
        self._progress: dict[int, Progress] = {}

    def __len__(self) -> int:
        """The lanes in use."""
        return len(self._progress)

    def admit(self, experiment: Experiment, hyperparameters: Hyperparameters, snapshot: Snapshot | None = None) -> int:
        """Gives a run a lane, from its first epoch or from a snapshot, and returns the lane's index.

        Raises `ValueError` if the run needs another program, or if the snapshot is not one of this shape.
        """
        state = self.program.init(experiment, hyperparameters)
        if snapshot is not None:
            state = _restore(state, snapshot)
        lane = next(k for k in range(len(self) + 1) if k not in self._progress)
        self._store.put(lane, state)
        self._progress[lane] = self._look(state)
        return lane

    def train(self, evaluations: int) -> dict[int, Record]:
        """Trains all lanes for so many evaluation intervals (`MAX_EVALUATIONS` at most), or to their end.

        Returns what each lane recorded.
        """
        if not 1 <= evaluations <= MAX_EVALUATIONS:
            raise ValueError(f"evaluations must be between 1 and {MAX_EVALUATIONS}, but is {evaluations}")
        records = {}
        for lane, (state, rows, done) in self._store.train(list(self._progress), evaluations).items():
            records[lane] = Record(**rows).rows(slice(0, int(done)))
            self._progress[lane] = state
        return records

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

    def release(self, lane: int) -> None:
        """Frees the lane."""
        del self._progress[lane]
        self._store.drop(lane, list(self._progress))

    def _look(self, state: LaneState) -> Progress:
        return _progress(jax.device_get(_scalars(self.program, state)))


def _width_for(lanes: int) -> int:
    """The narrowest program that holds so many lanes; beyond the steps, a multiple of the last one."""
    return next((width for width in WIDTHS if width >= lanes), -(-lanes // WIDTHS[-1]) * WIDTHS[-1])


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


Trained = tuple[Progress, dict[str, Any], int]


class _Looped:
    """A state a lane; the program of one lane serves them all."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._states: dict[int, LaneState] = {}
        # A chunk of a small network leaves most of a second core idle: lanes overlap instead.
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="lane")

    def put(self, lane: int, state: LaneState) -> None:
        self._states[lane] = state

    def get(self, lane: int) -> LaneState:
        return self._states[lane]

    def drop(self, lane: int, _remaining: list[int]) -> None:
        del self._states[lane]

    def train(self, lanes: list[int], evaluations: int) -> dict[int, Trained]:
        def train(lane: int) -> Trained:
            self._states[lane], rows, done = self._program.train(self._states[lane], evaluations)
            scalars, rows, done = jax.device_get((_scalars(self._program, self._states[lane]), rows, done))
            return _progress(scalars), rows, int(done)

        return dict(zip(lanes, self._threads.map(train, lanes), strict=True))


class _Batched:
    """One state with a lane axis in front; the program maps over it."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._states: LaneState | None = None
        self._width = 0

    def put(self, lane: int, state: LaneState) -> None:
        if lane >= self._width:
            self._resize(_width_for(lane + 1), state)
        self._states = jax.tree.map(lambda all_, one: all_.at[lane].set(one), self._states, state)

    def get(self, lane: int) -> LaneState:
        state: LaneState = jax.tree.map(lambda leaf: leaf[lane], self._states)
        return state

    def drop(self, lane: int, remaining: list[int]) -> None:
        # An epoch beyond any budget: the lane has ended and is left alone by the program.
        never = jnp.int32(np.iinfo(np.int32).max)
        self._states = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf.at[lane].set(never) if path[0].name == "epoch" else leaf, self._states
        )
        width = _width_for(max(remaining, default=0) + 1)
        if width < self._width:
            self._resize(width, self.get(0))

    def _resize(self, width: int, filler: LaneState) -> None:
        """Cuts or pads the lane axis; what is padded has ended before it began."""
        idle = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full_like(leaf, np.iinfo(np.int32).max) if path[0].name == "epoch" else leaf,
            filler,
        )
        states = [self.get(k) if k < self._width else idle for k in range(width)]
        self._states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self._width = width

    @cached_property
    def _train(self) -> Any:
        return jax.jit(jax.vmap(self._program.train_lane, in_axes=(0, None, None)), donate_argnums=0)

    def train(self, lanes: list[int], evaluations: int) -> dict[int, Trained]:
        if not lanes:
            return {}
        self._states, rows, done = self._train(self._states, jnp.int32(evaluations), self._program.data)
        scalars = jax.vmap(lambda state: _scalars(self._program, state))(self._states)
        scalars, rows, done = jax.device_get((scalars, rows, done))
        return {
            lane: (
                _progress({name: values[lane] for name, values in scalars.items()}),
                {name: values[lane] for name, values in rows.items()},
                int(done[lane]),
            )
            for lane in lanes
        }
