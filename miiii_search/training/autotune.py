"""How many lanes to train at once on this machine: by its memory, and by measuring."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.device import cores, is_out_of_memory
from miiii_search.training.lane_state import LANE_WIDTHS
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import LaneState, Program

MEASURE_SECONDS = 0.5
WORTHWHILE = 1.05
"""More lanes are taken while they train at least this much faster: each costs memory and answers later."""
MEMORY_SHARE = 0.9
LARGEST = 64


@dataclass(frozen=True)
class Point:
    """A number of lanes and what it is good for."""

    lanes: int
    epochs_per_second: float
    """Of all lanes together."""
    bytes_per_lane: int | None
    """On the device; None on a CPU, whose memory does not limit the number of lanes."""


def choose_lanes(program: Program, experiment: Experiment, hyperparameters: Hyperparameters) -> tuple[int, str]:
    """How many lanes train fastest on this machine, and why, in words."""
    points: list[Point] = []
    limit, chosen, end = device_memory(), None, ""
    try:
        for point in measure(program, experiment, hyperparameters):
            points.append(point)
            if chosen is None or point.epochs_per_second >= WORTHWHILE * chosen.epochs_per_second:
                chosen = point
            elif point.lanes > 2 * chosen.lanes:
                break  # twice in a row more lanes were not faster
            if limit and point.bytes_per_lane and 2 * point.lanes * point.bytes_per_lane > MEMORY_SHARE * limit:
                break
    except Exception as error:
        if chosen is None or not is_out_of_memory(error):
            raise
        end = "; more do not fit"
    assert chosen is not None
    why = ", ".join(f"{p.lanes} train {p.epochs_per_second:,.4g} epochs/s" for p in points)
    if limit and points[-1].bytes_per_lane:
        why += f"; a lane takes {points[-1].bytes_per_lane / 2**20:,.0f} of the device's {limit / 2**20:,.0f} MiB"
    return chosen.lanes, why + end


def device_memory() -> int | None:
    """What the smallest device can hold, in bytes, or None if it does not tell, as a CPU does not."""
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in jax.devices()]
    return min((limit for limit in limits if limit), default=None) if all(limits) else None


def measure(program: Program, experiment: Experiment, hyperparameters: Hyperparameters) -> Iterator[Point]:
    """Trains more and more lanes for a moment each."""
    program.compile_all()
    if jax.default_backend() == "cpu":
        for lanes in sorted({1, *(w for w in LANE_WIDTHS if w < cores()), cores()}):
            yield _beside_each_other(program, experiment, hyperparameters, lanes)
    else:
        for lanes in (w for w in LANE_WIDTHS if w <= LARGEST and w.bit_count() == 1):
            yield _batched(program, experiment, hyperparameters, lanes)


def _beside_each_other(program: Program, experiment: Experiment, hyperparameters: Hyperparameters, lanes: int) -> Point:
    def train(state: LaneState) -> int:
        start, evaluations, done = time.monotonic(), 0, 1
        while done and time.monotonic() - start < MEASURE_SECONDS:  # a short run ends before
            state, _, count = program.train(state, 1)
            done = int(count)
            evaluations += done
        return evaluations

    states = [program.init(experiment, hyperparameters) for _ in range(lanes)]
    with ThreadPoolExecutor(lanes) as pool:
        start = time.monotonic()
        evaluations = sum(pool.map(train, states))
        seconds = time.monotonic() - start
    return Point(lanes, evaluations * experiment.evaluation_interval / seconds, None)


def _batched(program: Program, experiment: Experiment, hyperparameters: Hyperparameters, lanes: int) -> Point:
    batch = Lanes(program.key, batched=True, program=program)
    for seed in range(lanes):
        batch.admit(experiment.model_copy(update={"seed": seed}), hyperparameters)
    batch.train_async(1)
    evaluations, start = 0, time.monotonic()
    while time.monotonic() - start < MEASURE_SECONDS:
        rows = batch.train_async(1)
        evaluations += sum(rows.evaluations(lane) for lane in range(lanes))
    seconds = time.monotonic() - start
    speed = evaluations * experiment.evaluation_interval / seconds
    return Point(lanes, speed, batch.bytes_per_lane())
