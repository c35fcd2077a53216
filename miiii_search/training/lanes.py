"""Lanes: several runs of one program, each at its own epoch."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lane_functions import MAX_EVALUATIONS
from miiii_search.training.lane_state import Arrays, RunProgress, state_from_arrays, state_to_arrays
from miiii_search.training.lane_stores import (
    PendingRecords,
    SequentialLanes,
    VmappedLanes,
    progress_from_scalars,
    progress_scalars,
)
from miiii_search.training.numerics import pinned
from miiii_search.training.program import Program, ProgramKey


class Lanes:
    """Runs that share a program: admit, train, copy and release them.

    On a CPU, the program of one lane trains the lanes one after the other. Batched matrix products are slower there.
    Nothing is compiled when lanes come and go, and the number of lanes does not change a result by a single bit.
    `TrainerPool` keeps all cores busy with several `Lanes`.

    Elsewhere lanes are batched: one program maps over a lane axis. Its width follows the number of lanes in the steps
    of `LANE_WIDTHS`. The axis is split over the devices, which do not communicate.

    One thread uses a `Lanes` object. Several objects may share a program.

    Args:
        key: The key of the program.
        batched: Whether lanes are batched. By default they are, except on a CPU.
        program: The program, if there is one already.
        devices: The devices for batched lanes. By default all.
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
        """Return the number of lanes in use."""
        return len(self._progress)

    def prepare(self, lanes: int, wait: bool = True) -> bool:
        """Compile what a number of lanes needs, in a separate thread.

        Args:
            lanes: The number of lanes.
            wait: Whether to wait until it is compiled.

        Returns:
            Whether it is compiled.
        """
        return self._store.prepare(lanes, wait)

    def needs_wider_program(self, lanes: int) -> bool:
        """Return whether a number of lanes needs a wider program than the current one, and so more memory."""
        return self._store.needs_wider_program(lanes)

    @pinned
    def admit(self, experiment: Experiment, hyperparameters: Hyperparameters, state: Arrays | None = None) -> int:
        """Give a lane to a run.

        Args:
            experiment: The run's experiment.
            hyperparameters: The run's hyperparameters.
            state: The state from which to continue, as `state` returned it. By default the run starts anew.

        Returns:
            The index of the lane.

        Raises:
            ValueError: The run needs another program, or the state has other shapes.
        """
        lane_state = self.program.init(experiment, hyperparameters)
        if state is not None:
            lane_state = state_from_arrays(state, like=lane_state)
        lane = next(k for k in range(len(self) + 1) if k not in self._progress)
        self._store.put(lane, lane_state)
        self._progress[lane] = progress_from_scalars(jax.device_get(progress_scalars(self.program, lane_state)))
        return lane

    def train(self, evaluations: int) -> dict[int, Record]:
        """Train all lanes for a number of evaluation intervals, or until their runs end.

        Args:
            evaluations: The number of intervals, at most `MAX_EVALUATIONS`.

        Returns:
            The new rows of each lane's record.
        """
        records = self.train_async(evaluations)
        return {lane: records.record(lane) for lane in self._progress}

    @pinned
    def train_async(self, evaluations: int) -> PendingRecords:
        """Train as `train` does, but return before the records are copied to the host.

        Args:
            evaluations: The number of intervals, at most `MAX_EVALUATIONS`.

        Raises:
            ValueError: `evaluations` is out of range.
        """
        if not 1 <= evaluations <= MAX_EVALUATIONS:
            raise ValueError(f"evaluations must be between 1 and {MAX_EVALUATIONS}, but is {evaluations}")
        self._store.prepare(len(self), wait=True)
        progress, records = self._store.train(list(self._progress), evaluations)
        self._progress |= progress
        return records

    def progress(self, lane: int) -> RunProgress:
        """Return the progress of the run in a lane."""
        return self._progress[lane]

    @pinned
    def final_metrics(self, lane: int) -> dict[str, Floats]:
        """Return `train_loss`, `train_accuracy`, `test_loss` and `test_accuracy` of a lane, `[tasks]` each.

        They are measured without dropout. The test split is used only here, once the run has ended.
        """
        metrics: dict[str, Floats] = jax.device_get(self.program.final_metrics(self._store.get(lane)))
        return metrics

    @pinned
    def spectrum(self, lane: int) -> Floats:
        """Return the mean Fourier magnitudes of a lane's neurons, `[p, p // 2 + 1]`; see `Program.spectrum`."""
        return np.asarray(self.program.spectrum(self._store.get(lane)))

    @pinned
    def weights(self, lane: int) -> Arrays:
        """Return the weights of the run in a lane, by name."""
        return {name: np.asarray(array) for name, array in self._store.get(lane).weights.items()}

    @pinned
    def state(self, lane: int) -> Arrays:
        """Return everything that `admit` needs to continue the run exactly from here."""
        return state_to_arrays(self._store.get(lane))

    def bytes_per_lane(self) -> int | None:
        """Return the bytes per lane on a device during training, or None if the compiler does not tell."""
        return self._store.bytes_per_lane()

    @pinned
    def release(self, lane: int) -> None:
        """Free a lane."""
        del self._progress[lane]
        self._store.drop(lane)

    @pinned
    def clear(self) -> None:
        """Free all lanes, even if an error left their states invalid."""
        self._progress = {}
        self._store.clear()
