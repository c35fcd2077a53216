"""Lanes on four devices. test_devices.py runs this in a separate process in which JAX emulates them."""

import json
import re

import jax
import numpy as np

from miiii_search.training.device import use_compilation_cache
from miiii_search.training.lane_state import Arrays
from miiii_search.training.lane_stores import VmappedLanes
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey
from tests.training.small import NARROW, SMALL, with_seed

COLLECTIVE = re.compile(r"all-reduce|all-gather|all-to-all|collective|reduce-scatter|partition-id|send\(|recv\(")


def distance(one: Arrays, other: Arrays) -> float:
    """Return the largest ‖ΔW‖/‖W‖ of all matrices."""
    return max(float(np.linalg.norm(one[name] - other[name]) / np.linalg.norm(one[name])) for name in one)


def main() -> None:
    use_compilation_cache()
    devices = jax.devices()
    runs = [
        (with_seed(seed), NARROW.model_copy(update={"dropout": (0.0, 0.5)[seed % 2], "learning_rate": 1e-4}))
        for seed in range(6)
    ]

    # First one lane on each of four devices, then six lanes with two per device. One lane ends before the others.
    split = Lanes(ProgramKey.of(SMALL, NARROW), batched=True, devices=devices)
    assert isinstance(split._store, VmappedLanes)
    lanes = [split.admit(*run) for run in runs[:4]]
    split.train(5)
    weights = [split.weights(lane) for lane in lanes]
    assert split._store._states is not None
    placed = {shard.device.id for shard in split._store._states.weights["query"].addressable_shards}
    split.release(lanes[1])
    split.train(15)
    late = [split.weights(lane) for lane in (0, 2, 3)]

    alone = Lanes(ProgramKey.of(SMALL, NARROW), batched=True, devices=devices[:1])
    distances = []
    for k, run in enumerate(runs[:4]):
        lane = alone.admit(*run)
        alone.train(5)
        distances.append(distance(alone.weights(lane), weights[k]))
        if k != 1:
            alone.train(15)
            distances.append(distance(alone.weights(lane), late[(0, 2, 3).index(k)]))
        alone.release(lane)

    split.admit(*runs[4])
    split.admit(*runs[5])
    split.train(1)
    final = split.final_metrics(4)
    texts = [program.result().as_text() for program in split._store.programs.values()]
    print(
        json.dumps(
            {
                "devices": len(devices),
                "placed_on": sorted(placed),
                "distances": distances,
                "widths": sorted(split._store.programs),
                "collectives": sorted({found for text in texts for found in COLLECTIVE.findall(text)}),
                "test_accuracy": len(final["test_accuracy"]),
                "spectrum": split.spectrum(4).shape,
                "epochs": [split.progress(lane).epoch for lane in range(5)],
            }
        )
    )


if __name__ == "__main__":
    main()
