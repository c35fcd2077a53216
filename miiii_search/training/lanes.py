"""Lanes: K runs of one shape, each with its own clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lane_state import (
    PendingRecords,
    RunProgress,
    SequentialLanes,
    VmappedLanes,
    progress_of,
    scalars_of,
)
from miiii_search.training.numerics import pinned
from miiii_search.training.program import MAX_EVALUATIONS, LaneState, Program, ProgramKey

Arrays = dict[str, np.ndarray[Any, Any]]
"""A lane's state on the host: name → array. What a checkpoint holds."""


class Lanes:
    """Runs that share a program: admit, train, snapshot, release.

    On a CPU one program of one lane serves all lanes, one after the other: batched matrix products are slower
    there, nothing is compiled when lanes come and go, and a lane's result is the same, bit for bit, however many
    neighbours it has. (Where cores would idle, several `Lanes` train beside each other, see `Trainer`.) Elsewhere
    lanes are batched: one program maps over a lane axis, whose width follows demand in the steps of `WIDTHS`. The
    axis is split over the `devices`, which have nothing to say to each other.

    Not for use by several threads at once; several `Lanes` may share a `program`.
    """

    @pinned
    def __init__(
        self,
        key: ProgramKey,
        batched: bool | None = None,
        program: Program | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.program = program or Program(key)
        batched = jax.default_backend() != "cpu" if batched is None else batched
        self._store: SequentialLanes | VmappedLanes
        self._store = VmappedLanes(self.program, devices or jax.devices()) if batched else SequentialLanes(self.program)
        self._progress: dict[int, RunProgress] = {}

    def __len__(self) -> int:
        """The lanes in use."""
        return len(self._progress)

    def prepare(self, lanes: int, wait: bool = True) -> bool:
        """Compiles what so many lanes need, in a thread of its own; True once it is there."""
        return self._store.prepare(lanes, wait)

    def needs_wider_program(self, lanes: int) -> bool:
        """Whether so many lanes need a wider program than the one that trains now, and so more memory."""
        return self._store.needs_wider_program(lanes)

    @pinned
    def admit(self, experiment: Experiment, hyperparameters: Hyperparameters, state: Arrays | None = None) -> int:
        """Gives a run a lane, from its first epoch or from a snapshot, and returns the lane's index.

        Raises `ValueError` if the run needs another program, or if the snapshot is not one of this shape.
        """
        lane_state = self.program.init(experiment, hyperparameters)
        if state is not None:
            lane_state = _restore(lane_state, state)
        lane = next(k for k in range(len(self) + 1) if k not in self._progress)
        self._store.put(lane, lane_state)
        self._progress[lane] = progress_of(jax.device_get(scalars_of(self.program, lane_state)))
        return lane

    def train(self, evaluations: int) -> dict[int, Record]:
        """Trains all lanes for so many evaluation intervals (`MAX_EVALUATIONS` at most), or to their end.

        Returns what each lane recorded.
        """
        rows = self.train_async(evaluations)
        return {lane: rows.record(lane) for lane in self._progress}

    @pinned
    def train_async(self, evaluations: int) -> PendingRecords:
        """`train`, but what was recorded is still on its way to the host when this returns."""
        if not 1 <= evaluations <= MAX_EVALUATIONS:
            raise ValueError(f"evaluations must be between 1 and {MAX_EVALUATIONS}, but is {evaluations}")
        self._store.prepare(len(self), wait=True)
        progress, rows = self._store.train(list(self._progress), evaluations)
        self._progress |= progress
        return rows

    def progress(self, lane: int) -> RunProgress:
        """Where the run in this lane stands."""
        return self._progress[lane]

    @pinned
    def final_metrics(self, lane: int) -> dict[str, Floats]:
        """`train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` of each task, without dropout.

        The test split is touched once, when the run has ended.
        """
        final: dict[str, Floats] = jax.device_get(self.program.final_metrics(self._store.get(lane)))
        return final

    @pinned
    def spectrum(self, lane: int) -> Floats:
        """The neurons' mean Fourier magnitudes `[p, p // 2 + 1]`, see `Program.spectrum`."""
        return np.asarray(self.program.spectrum(self._store.get(lane)))

    @pinned
    def weights(self, lane: int) -> Arrays:
        """The weights of the run in this lane, by name."""
        return {name: np.asarray(array) for name, array in self._store.get(lane).weights.items()}

    @pinned
    def state(self, lane: int) -> Arrays:
        """Everything that `admit` needs to go on from here, exactly."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(self._store.get(lane))
        return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}

    def bytes_per_lane(self) -> int | None:
        """What a lane takes on its device while it trains, by the compiler's account; None if it gives none."""
        return self._store.bytes_per_lane()

    @pinned
    def release(self, lane: int) -> None:
        """Frees the lane."""
        del self._progress[lane]
        self._store.drop(lane)

    @pinned
    def clear(self) -> None:
        """Frees all lanes, also after an error that left them in no state."""
        self._progress = {}
        self._store.clear()


def _restore(state: LaneState, snapshot: Arrays) -> LaneState:
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    restored = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in snapshot:
            raise ValueError(f"the state lacks {name}")
        array = snapshot[name]
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ValueError(
                f"{name} of the state must be {leaf.dtype}{list(leaf.shape)}, but is {array.dtype}{list(array.shape)}"
            )
        restored.append(jnp.asarray(array))
    whole: LaneState = jax.tree_util.tree_unflatten(structure, restored)
    return whole
