"""Question: how fast are batched lanes on this GPU, and is that what the roofline predicts?

    python bench/gpu_speeds.py [--quick] [--small] [--seconds N] [--json FILE]

Trains batched lanes of p = 113 and 30 %, for both widths, three precisions and several numbers of lanes, the most
telling ones first. The file is written after each of them, so that what was measured survives whatever comes next.
After `--seconds` no further program is begun.

The output has one row per program: epochs per second of all lanes, the prediction of `make gpu-compile`, trials of
Table 1 per hour, memory per lane, and the seconds to compile.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
from measuring import make_parser, parse_arguments, print_table, write_json

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.study.gpu_predictions import read_predictions
from miiii_search.training.device import describe_device, is_out_of_memory
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey

MEASURE_SECONDS = 3.0


class Configuration(NamedTuple):
    """A program to measure."""

    d_model: int
    precision: str
    lanes: int


PROGRAMS = [
    Configuration(256, "float32", 8),
    Configuration(256, "bf16", 32),
    Configuration(128, "float32", 8),
    Configuration(128, "bf16", 32),
    Configuration(256, "tf32", 32),
    Configuration(256, "float32", 32),
    Configuration(128, "float32", 32),
    Configuration(256, "float32", 1),
    Configuration(256, "bf16", 128),
    Configuration(128, "tf32", 32),
    Configuration(128, "bf16", 128),
    Configuration(256, "float32", 128),
    Configuration(128, "float32", 128),
    Configuration(128, "float32", 1),
]
SMALL_PROGRAMS = [Configuration(16, "float32", 2), Configuration(16, "bf16", 4)]


def measure(configuration: Configuration, experiment: Experiment, seconds: float) -> dict[str, Any]:
    """Train lanes of one program for some seconds, after it was compiled and has trained a first chunk.

    Args:
        configuration: The program.
        experiment: Its experiment, except the precision.
        seconds: Duration of the measurement.
    """
    experiment = Experiment.model_validate({**experiment.model_dump(), "precision": configuration.precision})
    hyperparameters = Hyperparameters(d_model=configuration.d_model)
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters), batched=True, devices=jax.devices()[:1])
    start = time.monotonic()
    lanes.prepare(configuration.lanes)
    compiling = time.monotonic() - start
    for seed in range(configuration.lanes):
        lanes.admit(experiment.model_copy(update={"seed": seed}), hyperparameters)
    lanes.train_async(1)
    evaluations, count, start = 1, 0, time.monotonic()
    while (spent := time.monotonic() - start) < seconds:
        records = lanes.train_async(evaluations)
        count += sum(records.evaluations(lane) for lane in range(configuration.lanes))
        evaluations = min(2 * evaluations, 16)
    speed = count * experiment.evaluation_interval / spent
    predicted = predict(configuration, experiment)
    return {
        **configuration._asdict(),
        "epochs_per_second": speed,
        "predicted_epochs_per_second": predicted,
        "measured_over_predicted": speed / predicted if predicted else None,
        "trials_per_hour": 3600 * speed / Experiment().epochs,
        "bytes_per_lane": lanes.bytes_per_lane(),
        "compile_seconds": compiling,
        "memory": jax.devices()[0].memory_stats(),
    }


def predict(configuration: Configuration, experiment: Experiment) -> float | None:
    """Return the predicted speed on this device, or None if the table has none."""
    table = read_predictions()
    gpu = table.gpu_of_device(describe_device())
    if gpu is None:
        return None
    return table.speed(gpu, experiment, [configuration.d_model] * configuration.lanes)


def try_to_measure(configuration: Configuration, experiment: Experiment, seconds: float) -> dict[str, Any]:
    """Measure a program, or return what went wrong."""
    try:
        return measure(configuration, experiment, seconds)
    except Exception as error:
        kind = "out of memory" if is_out_of_memory(error) else type(error).__name__
        return {**configuration._asdict(), "error": f"{kind}: {str(error)[:300]}"}


def main() -> None:
    options = make_parser(__doc__, "measure the first program only")
    options.add_argument("--small", action="store_true", help="tiny programs, to try the script on a CPU")
    options.add_argument("--seconds", type=float, default=300.0, help="begin no program later (default %(default)s)")
    arguments = parse_arguments(options)
    programs = SMALL_PROGRAMS if arguments.small else PROGRAMS
    experiment = Experiment(p=11, epochs=10**7, evaluate_every=16) if arguments.small else Experiment()
    rows, start = list[dict[str, Any]](), time.monotonic()
    for configuration in programs[:1] if arguments.quick else programs:
        if time.monotonic() - start > arguments.seconds:
            print(f"no time for {configuration} and the rest", flush=True)
            break
        rows.append(try_to_measure(configuration, experiment, 0.2 if arguments.small else MEASURE_SECONDS))
        print({name: value for name, value in rows[-1].items() if name != "memory"}, flush=True)
        write_json(arguments.json, {"programs": rows})
    columns = ("epochs_per_second", "predicted_epochs_per_second", "trials_per_hour", "compile_seconds")
    print_table(
        f"Batched lanes, p = {experiment.p}, 30 %, 4 heads",
        ["d", "precision", "lanes", "epochs/s", "predicted", "trials/h", "compile s", "MiB/lane", ""],
        [
            [
                *(row[name] for name in Configuration._fields),
                *(row.get(name) or "-" for name in columns),
                round((row.get("bytes_per_lane") or 0) / 2**20),
                row.get("error", "")[:40],
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
