"""Question: how much of an epoch's time does each of its parts take?

    python bench/parts.py [--quick] [--json FILE]

Times each part alone in a loop, with the shapes and the memory layout of the training step, and the whole step.

The output has milliseconds per epoch. "the rest" is the difference: attention, ReLU, the residual stream, and waiting
between parts. A part alone may find more of its data in the cache than it does within a step.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from measuring import (
    Workload,
    make_parser,
    needed_gflop,
    parse_arguments,
    print_table,
    time_alternately,
    wait_for,
    write_json,
)

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.loss import task_weights, weighted_loss
from miiii_search.training.model import make_dropout
from miiii_search.training.optimizer import make_optimizer
from miiii_search.training.program import Program, ProgramKey

REPEATS = 8
"""Iterations of a loop."""

barrier: Any = jax.lax.optimization_barrier


def repeat(body: Callable[[Any], Any], carry: Any) -> Workload:
    """Return a workload of `REPEATS` iterations, in which the carry depends on everything that the body computes."""
    compiled = jax.jit(lambda carry: jax.lax.fori_loop(0, REPEATS, lambda _, c: body(c), carry)).lower(carry).compile()
    return lambda: wait_for(compiled(carry))


def products(matrices: dict[str, tuple[int, int]], n: int) -> Workload:
    """Return a workload of matrix products: forward, and the derivatives by the input and by the weights.

    Args:
        matrices: Shapes `[inputs, outputs]` of weight matrices, by name.
        n: Number of samples.
    """
    key = jax.random.PRNGKey(0)

    def random(*shape: int) -> jax.Array:
        return jax.random.normal(key, shape) / 100

    arrays = {name: (random(k, m), random(k, n), random(m, n)) for name, (k, m) in matrices.items()}

    def turn(carry: Any) -> Any:
        after = {}
        for name, (weights, into, by_out) in carry.items():
            out, by_in, by_weights = weights.T @ into, weights @ by_out, into @ by_out.T
            # The use of one element of each result keeps the compiler from removing the product or moving it out.
            nudge = 1e-30 * (out[0, 0] + by_in[0, 0] + by_weights[0, 0])
            after[name] = (weights.at[0, 0].add(nudge), into.at[0, 0].add(nudge), by_out.at[0, 0].add(nudge))
        return barrier(after)

    return repeat(turn, arrays)


def measure(d_model: int, rounds: int) -> dict[str, Any]:
    """Measure the seconds per epoch of the whole and of its parts, with p = 113, 4 heads and 30 % of the samples."""
    experiment, hyperparameters = Experiment(), Hyperparameters(d_model=d_model)
    program = Program(ProgramKey.of(experiment, hyperparameters))
    state = program.init(experiment, hyperparameters)
    (x, y), n, d = program.data["train"], experiment.n_train, d_model
    logits = jax.random.normal(jax.random.PRNGKey(1), (sum(program.moduli), n))
    of_tasks = task_weights(program.moduli, program.scored)
    optimizer = make_optimizer(1e-3, 0.1, 0.5, 0.98)

    def loss(logits: jax.Array) -> jax.Array:
        gradient: jax.Array = jax.grad(lambda z: weighted_loss(z, y, of_tasks, program.moduli)[0])(logits)
        return logits + gradient

    def masks(z: jax.Array) -> jax.Array:
        dropout: Any = make_dropout(state.key + z[0, 0].astype(jnp.uint32), jnp.float32(0.1), "sample")
        masked: jax.Array = dropout(dropout(z))
        return masked

    def update(carry: Any) -> Any:
        weights, memory = carry
        updates, memory = optimizer.update(weights, memory, weights)
        return jax.tree.map(jnp.add, weights, updates), memory

    matrices = {
        "attention output": (d, d),
        "feed-forward in": (d, 4 * d),
        "feed-forward out": (4 * d, d),
        "unembedding": (d, sum(program.moduli)),
    }
    runs = {
        "whole": repeat(lambda s: program.step(s, x, y)[0], state),
        "products": products(matrices, n),
        "loss and its gradient": repeat(loss, logits),
        "dropout": repeat(masks, jnp.ones((d, n))),
        "gradient filter and AdamW": repeat(update, (state.weights, optimizer.init(state.weights))),
    }
    seconds = {name: statistics.median(s) / REPEATS for name, s in time_alternately(runs, rounds).items()}
    seconds["the rest"] = 2 * seconds["whole"] - sum(seconds.values())
    return {"d_model": d_model, "needed_gflop_per_epoch": needed_gflop(experiment, d), "seconds": seconds}


def main() -> None:
    arguments = parse_arguments(make_parser(__doc__, "measure d = 256 only, in five rounds"))
    results = [measure(d, 5 if arguments.quick else 11) for d in ([256] if arguments.quick else [256, 128])]
    rows = [[name, *(1000 * r["seconds"][name] for r in results)] for name in results[0]["seconds"]]
    print_table("Parts of an epoch, p = 113, 30 %, ms", ["part", *(f"d = {r['d_model']}" for r in results)], rows)
    write_json(arguments.json, {"widths": results})


if __name__ == "__main__":
    main()
