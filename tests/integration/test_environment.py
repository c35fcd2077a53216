"""The environment of a user says where a command computes, and not what."""

from __future__ import annotations

import tomllib
from pathlib import Path

from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes

HOSTILE = {
    "JAX_ENABLE_X64": "banana",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_DISABLE_JIT": "1",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true --no_such_flag",
    # Of a study; `train` of a file is not one.
    "MIIII_SET": "experiment.p=11",
    "MIIII_PRESET": "paper",
}


def test_the_environment_decides_nothing(processes: Processes, tmp_path: Path) -> None:
    """A worker and `train` compute the same weights, print the notice, and record the numerics."""
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run("create", "--preset", "demo", "--study", "s", *TINY, "--trials", "1", storage=storage)
    processes.environment |= HOSTILE
    said = processes.run("work", "--study", "s", storage=storage)
    for name in ("JAX_ENABLE_X64=banana", "JAX_DISABLE_JIT=1", "XLA_FLAGS=--no_such_flag"):
        assert name in said
    for name in HOSTILE:
        processes.environment.pop(name)
    processes.run("best", "--study", "s", "--out", "best.toml", storage=storage)
    numerics = tomllib.loads((tmp_path / "best.toml").read_text())["provenance"]["numerics"]
    assert (numerics["enable_x64"], numerics["threefry_partitionable"]) == (False, True)
    said = processes.run("train", "best.toml", "--out", "run", storage=storage)
    assert "identical" in said and "ignored" not in said
    processes.environment |= HOSTILE
    assert "identical" in processes.run("train", "best.toml", "--out", "again", storage=storage)


def test_a_value_that_jax_refuses(processes: Processes, tmp_path: Path) -> None:
    """A wrong value of a variable that is left to the user is one line, not a traceback."""
    processes.environment["JAX_NUM_CPU_DEVICES"] = "several"
    train = processes.start("train", "--preset", "demo", *TINY, "--out", "run", storage="sqlite:///none.db")
    assert train.wait(LIMIT_SECONDS) == 2
    [line] = processes.log(train).splitlines()
    assert line.startswith("error: JAX cannot be imported with this environment:") and "several" in line
