"""Question: how fast is one lane, compared with the machine's limit and with two other implementations?

    python bench/training.py [--quick] [--json FILE]

All implementations train with dropout, and record every task's loss and accuracy and every matrix's gradient norm at
each step. Ours is what the service runs by default, with an evaluation every 16 epochs. The baselines do not evaluate.

The output has one row per width: seconds per epoch, the share of the peak of large float32 products, and how many times
slower the baselines are. Every figure is the median of alternating measurements in one process.
"""

from __future__ import annotations

import statistics
from typing import Any

import jax
import jax.numpy as jnp
import optax
from baselines import port_loss, port_weights, textbook_loss
from measuring import (
    PEAK_GFLOP,
    Workload,
    make_parser,
    median_ratio,
    needed_gflop,
    parse_arguments,
    peak_workload,
    print_table,
    time_alternately,
    wait_for,
    write_json,
)

from miiii_search.experiment import tasks
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.optimizer import make_optimizer
from miiii_search.training.program import Program, ProgramKey

BASELINE_EPOCHS = 2
"""Epochs per measurement of a baseline."""


def ours(experiment: Experiment, hyperparameters: Hyperparameters) -> Workload:
    """Return a workload of `evaluation_interval` epochs and an evaluation, as the service trains them."""
    program = Program(ProgramKey.of(experiment, hyperparameters))
    state = program.init(experiment, hyperparameters)

    def run() -> None:
        nonlocal state
        state, _, _ = program.train(state, 1)
        wait_for(state)

    return run


def baseline(experiment: Experiment, hyperparameters: Hyperparameters, kind: str, dtype: Any) -> Workload:
    """Return a workload of `BASELINE_EPOCHS` epochs of a baseline, in one compiled loop.

    It has the same optimizer and starts from the same weights.
    """
    with jax.enable_x64(dtype == jnp.float64):
        program = Program(ProgramKey.of(experiment, hyperparameters))
        weights = program.init(experiment, hyperparameters).weights
        if kind == "port":
            weights = port_weights(weights, experiment.classes)
        weights = jax.tree.map(lambda w: jnp.array(w, dtype), weights)
        loss = {"port": port_loss, "textbook": textbook_loss}[kind]
        optimizer = make_optimizer(
            hyperparameters.learning_rate,
            hyperparameters.weight_decay,
            hyperparameters.grokfast_lambda,
            experiment.grokfast_alpha,
        )
        split = tasks.make_splits(experiment).train

        # Samples are arguments. With constants the compiler would compute the gradients of lookups in advance.
        def epoch(carry: Any, samples: tuple[jax.Array, jax.Array]) -> Any:
            (weights, state, key, _), (x, y) = carry, samples
            key, of_epoch = jax.random.split(key)
            gradients, of_tasks = jax.grad(loss, has_aux=True)(weights, x, y, experiment.classes, of_epoch)
            updates, state = optimizer.update(gradients, state, weights)
            record = (of_tasks, jax.tree.map(jnp.linalg.norm, gradients))  # what our step records as well
            return optax.apply_updates(weights, updates), state, key, record

        def epochs(carry: Any, samples: tuple[jax.Array, jax.Array]) -> Any:
            return jax.lax.fori_loop(0, BASELINE_EPOCHS, lambda _, carry: epoch(carry, samples), carry)

        samples = (jnp.asarray(split.x), jnp.asarray(split.y))
        carry = (weights, optimizer.init(weights), jax.random.PRNGKey(1), None)
        empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(epoch, carry, samples)[-1])
        carry = (*carry[:-1], empty)
        compiled = jax.jit(epochs, donate_argnums=0).lower(carry, samples).compile()

    def run() -> None:
        nonlocal carry
        carry = compiled(carry, samples)
        wait_for(carry)

    return run


def measure(d_model: int, rounds: int) -> dict[str, Any]:
    """Measure all implementations with p = 113, 4 heads and 30 % of the samples."""
    experiment, hyperparameters = Experiment(), Hyperparameters(d_model=d_model)
    runs = {
        "peak": peak_workload(),
        "ours": ours(experiment, hyperparameters),
        "textbook_float32": baseline(experiment, hyperparameters, "textbook", jnp.float32),
        "port_float32": baseline(experiment, hyperparameters, "port", jnp.float32),
        "port_float64": baseline(experiment, hyperparameters, "port", jnp.float64),
    }
    seconds = time_alternately(runs, rounds)
    peaks = [PEAK_GFLOP / s for s in seconds.pop("peak")]
    epochs = dict.fromkeys(seconds, BASELINE_EPOCHS) | {"ours": experiment.evaluation_interval}
    per_epoch = {name: [s / epochs[name] for s in times] for name, times in seconds.items()}
    needed = needed_gflop(experiment, d_model)
    return {
        "d_model": d_model,
        "seconds_per_epoch": statistics.median(per_epoch["ours"]),
        "needed_gflop_per_epoch": needed,
        "peak_gflops": statistics.median(peaks),
        "peak_share": median_ratio([needed / s for s in per_epoch["ours"]], peaks),
        **{f"vs_{name}": median_ratio(per_epoch[name], per_epoch["ours"]) for name in per_epoch if name != "ours"},
        "seconds_of_each_run": per_epoch,
    }


def main() -> None:
    arguments = parse_arguments(make_parser(__doc__, "measure d = 256 only, in three rounds: under a minute"))
    widths, rounds = ([256], 3) if arguments.quick else ([256, 128], 9)
    results = [measure(d_model, rounds) for d_model in widths]
    columns = {
        "d": "d_model",
        "s/epoch": "seconds_per_epoch",
        "needed GFLOP": "needed_gflop_per_epoch",
        "peak GFLOP/s": "peak_gflops",
        "share of peak": "peak_share",
        "x textbook f32": "vs_textbook_float32",
        "x port f32": "vs_port_float32",
        "x port f64": "vs_port_float64",
    }
    rows = [[result[key] for key in columns.values()] for result in results]
    print_table("One lane, p = 113, 4 heads, 30 %", list(columns), rows)
    write_json(arguments.json, {**results[0], "widths": results})


if __name__ == "__main__":
    main()
