"""Question: what would the batched program cost on a GPU, as far as its compiled code tells?

    python bench/gpu_compile.py [--quick] [--json FILE] [--table FILE]

Compiles the programs that a worker trains with, for NVIDIA GPUs that are not here. It needs JAX with CUDA, whose
compiler runs on any machine: `make gpu-compile` sets that up. Nothing is run, so every speed is a prediction.

For each program, the output has counts of one epoch, memory, and the speed that a roofline predicts: that of the
slowest of arithmetic, memory traffic and kernel launches. Traffic is an upper bound: a kernel's operands and results
count once each, as if nothing stayed in a cache from one kernel to the next. Real kernels differ too: on a GPU, XLA
measures several forms of each matrix product and takes the fastest, which it cannot do here.
"""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from gpu_program import Counts, count_aliases, count_collectives, count_loops, parse_program
from gpu_targets import GpuTarget, gpu_targets, has_cuda_compiler
from measuring import make_parser, print_table, write_json

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.program import Program, ProgramKey, bytes_per_lane, lower_lanes

MEMORY_SHARE = 0.9
"""Share of a GPU's memory that lanes may take, as in the automatic choice of lanes."""
BANDWIDTH_SHARE = 0.9
"""Share of the published bandwidth that a large copy reaches."""
ARITHMETIC_SHARE = 0.75
"""Share of the published arithmetic that large matrix products reach."""
LAUNCH_SECONDS = 2.5e-6
"""Time between the starts of two small kernels in a row."""

ASSUMPTIONS = {
    "memory_share": MEMORY_SHARE,
    "bandwidth_share": BANDWIDTH_SHARE,
    "arithmetic_share": ARITHMETIC_SHARE,
    "launch_seconds": LAUNCH_SECONDS,
}


class Configuration(NamedTuple):
    """A program to compile."""

    target: str = "h200"
    d_model: int = 256
    lanes: int = 8
    """Lanes on each device."""
    precision: str = "float32"
    devices: int = 1


QUICK = [Configuration()]
ALL = [
    *(Configuration("h200", d, lanes, precision) for d in (256, 128) for lanes in (1, 8, 32, 128)
      for precision in ("float32", "tf32", "bf16")),
    *(Configuration("h200", d, devices=4) for d in (256, 128)),
    *(Configuration(target, d, precision=precision) for target in ("h100", "a100", "rtx4090") for d in (256, 128)
      for precision in ("float32", "tf32", "bf16")),
]  # fmt: skip
"""The programs of `make gpu-compile`. Counts hardly depend on the target, so not every combination is there."""


def measure(configuration: Configuration) -> dict[str, Any]:
    """Compile a program for p = 113, 30 % of the samples and 4 heads. Return its counts and the prediction."""
    target = gpu_targets()[configuration.target]
    experiment = Experiment.model_validate({"precision": configuration.precision})
    hyperparameters = Hyperparameters(d_model=configuration.d_model)
    program = Program(ProgramKey.of(experiment, hyperparameters), platform="gpu")
    mesh = target.mesh(configuration.devices)
    lowered = lower_lanes(program, mesh, configuration.lanes * configuration.devices)
    start = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - start
    text = compiled.as_text()
    computations = parse_program(text)
    epoch, evaluation = count_loops(computations, experiment.evaluation_interval)
    memory = bytes_per_lane(compiled, configuration.lanes)
    assert memory is not None
    return {
        **configuration._asdict(),
        "n_heads": hyperparameters.n_heads,
        "kernels_per_epoch": epoch.kernels,
        "products_per_epoch": epoch.products,
        "gflop_per_lane_epoch": epoch.flops / configuration.lanes / 1e9,
        "bytes_per_lane_epoch": epoch.bytes // configuration.lanes,
        "kernels_per_evaluation": evaluation.kernels,
        "bytes_per_lane_evaluation": evaluation.bytes // configuration.lanes,
        "memory_per_lane": memory,
        "lanes_that_fit": int(MEMORY_SHARE * target.memory) // memory,
        "collectives": count_collectives(computations),
        "aliased_arrays": count_aliases(text),
        "state_arrays": len(jax.tree.leaves(program.abstract_state)),
        "compile_seconds": seconds,
        **predict(target, configuration, epoch, evaluation, experiment.evaluation_interval),
    }


def predict(
    target: GpuTarget, configuration: Configuration, epoch: Counts, evaluation: Counts, interval: int
) -> dict[str, Any]:
    """Predict the speed by a roofline: the slowest of arithmetic, traffic and launches limits it.

    Args:
        target: The GPU.
        configuration: Lanes per device, number of devices and precision.
        epoch: What an epoch of all lanes of a device costs.
        evaluation: What an evaluation costs, which follows every `interval` epochs.
        interval: Epochs between two evaluations.
    """

    def with_evaluation(name: str) -> float:
        return float(getattr(epoch, name) + getattr(evaluation, name) / interval)

    seconds = {
        "arithmetic": with_evaluation("flops") / (ARITHMETIC_SHARE * target.flops(configuration.precision)),
        "traffic": with_evaluation("bytes") / (BANDWIDTH_SHARE * target.bandwidth),
        "launches": with_evaluation("kernels") * LAUNCH_SECONDS,
    }
    limit = max(seconds, key=lambda name: seconds[name])
    return {
        "milliseconds_per_epoch": {name: 1000 * s for name, s in seconds.items()},
        "limited_by": limit,
        "predicted_lane_epochs_per_second": configuration.lanes * configuration.devices / seconds[limit],
    }


def measure_all(configurations: list[Configuration]) -> Iterator[dict[str, Any]]:
    """Measure each configuration, and say so, since one takes about a minute."""
    for k, configuration in enumerate(configurations):
        print(f"{k + 1} of {len(configurations)}: {' '.join(map(str, configuration))}", flush=True)
        yield measure(configuration)


def write_table(path: Path, results: list[dict[str, Any]]) -> None:
    """Write what a plan needs: the targets, the assumptions, and the programs with their predictions."""
    left_out = {"aliased_arrays", "state_arrays", "compile_seconds"}
    table = {
        "experiment": {"p": 113, "train_fraction": 0.3, "evaluate_every": 16, "task": "miiii"},
        "jax": jax.__version__,
        "assumptions": ASSUMPTIONS,
        "targets": {key: {"name": t.numbers["name"], "memory": t.memory} for key, t in gpu_targets().items()},
        "programs": [{name: _rounded(value) for name, value in r.items() if name not in left_out} for r in results],
    }
    path.write_text(json.dumps(table, indent=1) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _row(r: dict[str, Any]) -> list[object]:
    counts = [r["kernels_per_epoch"], r["products_per_epoch"], r["bytes_per_lane_epoch"] / 1e6]
    memory = [r["gflop_per_lane_epoch"], r["memory_per_lane"] / 1e6, r["lanes_that_fit"], r["collectives"]]
    speed = [r["compile_seconds"], r["predicted_lane_epochs_per_second"], r["limited_by"]]
    return [*(r[name] for name in Configuration._fields), *counts, *memory, *speed]


def main() -> None:
    parser: ArgumentParser = make_parser(__doc__, "compile d = 256, 8 lanes, float32 for an H200 only")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table of predictions for the package")
    arguments = parser.parse_args()
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # of the driver and of libraries that only running needs
    configured: Any = jax.config
    configured.update("jax_platforms", "cpu")
    if not has_cuda_compiler():
        parser.error("this JAX has no compiler for NVIDIA GPUs: make gpu-compile sets one up")
    results = list(measure_all(QUICK if arguments.quick else ALL))
    header = [*("target", "d", "lanes", "precision", "devices", "kernels", "products", "MB/lane", "GFLOP/lane")]
    header += [*("MB memory", "fit", "collectives", "compile s", "epochs/s", "limit")]
    print_table("Programs compiled for GPUs; nothing was run", header, [_row(r) for r in results])
    write_json(arguments.json, {**results[0], "assumptions": ASSUMPTIONS, "programs": results})
    if arguments.table is not None:
        write_table(arguments.table, results)


if __name__ == "__main__":
    main()
