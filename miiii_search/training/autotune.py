"""Choice of the number of lanes that train fastest on this machine, by measuring."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.device import count_cores, is_out_of_memory
from miiii_search.training.lane_state import LaneState
from miiii_search.training.lane_stores import LANE_WIDTHS
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program

MEASURE_SECONDS = 0.5
"""Duration of each measurement."""
MIN_SPEEDUP = 1.05
"""More lanes are chosen only if they are faster by at least this factor: each costs memory and makes chunks longer."""
MAX_MEMORY_FRACTION = 0.9
MAX_LANES = 64


@dataclass(frozen=True)
class LaneMeasurement:
    """The training speed with a number of lanes."""

    lanes: int
    epochs_per_second: float
    """Epochs per second of all lanes together."""
    bytes_per_lane: int | None
    """Bytes per lane on the device. None on a CPU, whose memory does not limit the number of lanes."""


def choose_lanes(program: Program, experiment: Experiment, hyperparameters: Hyperparameters) -> tuple[int, str]:
    """Measure more and more lanes, and choose the number that trains fastest.

    Args:
        program: The program to measure.
        experiment: An experiment of this program.
        hyperparameters: Hyperparameters of this program.

    Returns:
        The number of lanes, and the measurements in words.
    """
    measurements: list[LaneMeasurement] = []
    limit, chosen, end = device_memory(), None, ""
    try:
        for measurement in measure_lanes(program, experiment, hyperparameters):
            measurements.append(measurement)
            if chosen is None or measurement.epochs_per_second >= MIN_SPEEDUP * chosen.epochs_per_second:
                chosen = measurement
            elif measurement.lanes > 2 * chosen.lanes:
                break  # two larger numbers of lanes were not faster
            size = measurement.bytes_per_lane
            if limit and size and 2 * measurement.lanes * size > MAX_MEMORY_FRACTION * limit:
                break
    except Exception as error:
        if chosen is None or not is_out_of_memory(error):
            raise
        end = "; more do not fit"
    assert chosen is not None
    why = ", ".join(f"{m.lanes} train {m.epochs_per_second:,.4g} epochs/s" for m in measurements)
    if limit and measurements[-1].bytes_per_lane:
        why += f"; a lane takes {measurements[-1].bytes_per_lane / 2**20:,.0f} of the device's {limit / 2**20:,.0f} MiB"
    return chosen.lanes, why + end


def device_memory() -> int | None:
    """Return the memory of the smallest device in bytes, or None if devices do not tell, as CPUs do not."""
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in jax.devices()]
    return min((limit for limit in limits if limit), default=None) if all(limits) else None


def measure_lanes(
    program: Program, experiment: Experiment, hyperparameters: Hyperparameters
) -> Iterator[LaneMeasurement]:
    """Train more and more lanes for a moment each, and yield their speed."""
    program.compile_all()
    if jax.default_backend() == "cpu":
        for lanes in sorted({1, *(w for w in LANE_WIDTHS if w < count_cores()), count_cores()}):
            yield _measure_parallel(program, experiment, hyperparameters, lanes)
    else:
        for lanes in (w for w in LANE_WIDTHS if w <= MAX_LANES and w.bit_count() == 1):
            yield _measure_batched(program, experiment, hyperparameters, lanes)


def _measure_parallel(
    program: Program, experiment: Experiment, hyperparameters: Hyperparameters, lanes: int
) -> LaneMeasurement:
    """Measure lanes that train in parallel, each in its own thread."""

    def train(state: LaneState) -> int:
        start, evaluations, done = time.monotonic(), 0, 1
        while done and time.monotonic() - start < MEASURE_SECONDS:  # or until a short run ends
            state, _, count = program.train(state, 1)
            done = int(count)
            evaluations += done
        return evaluations

    states = [program.init(experiment, hyperparameters) for _ in range(lanes)]
    with ThreadPoolExecutor(lanes) as pool:
        start = time.monotonic()
        evaluations = sum(pool.map(train, states))
        seconds = time.monotonic() - start
    return LaneMeasurement(lanes, evaluations * experiment.evaluation_interval / seconds, None)


def _measure_batched(
    program: Program, experiment: Experiment, hyperparameters: Hyperparameters, lanes: int
) -> LaneMeasurement:
    """Measure lanes that train in one batch. The first evaluation, which compiles, is not measured."""
    batch = Lanes(program.key, batched=True, program=program)
    for seed in range(lanes):
        batch.admit(experiment.model_copy(update={"seed": seed}), hyperparameters)
    batch.train_async(1)
    evaluations, start = 0, time.monotonic()
    while time.monotonic() - start < MEASURE_SECONDS:
        records = batch.train_async(1)
        evaluations += sum(records.evaluations(lane) for lane in range(lanes))
    seconds = time.monotonic() - start
    speed = evaluations * experiment.evaluation_interval / seconds
    return LaneMeasurement(lanes, speed, batch.bytes_per_lane())
