"""Results depend on the run alone, not on JAX's configuration or the environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import numpy as np
import pytest

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.jax_environment import remove_unsafe_variables
from miiii_search.training.lanes import Lanes
from miiii_search.training.numerics import PINNED, describe_numerics, pinned_numerics
from miiii_search.training.program import ProgramKey

TINY = Experiment(p=7, task="nanda", train_fraction=0.5, epochs=16, evaluate_every=4, validation_samples=12)
SMALL = Hyperparameters(d_model=16, n_heads=2, learning_rate=3e-3, weight_decay=0.5, grokfast_lambda=0.5, dropout=0.1)

FOREIGN: dict[str, Any] = {
    "jax_enable_x64": True,
    "jax_threefry_partitionable": False,
    "jax_default_prng_impl": "rbg",
    "jax_random_seed_offset": 7,
    "jax_enable_custom_prng": True,
    "jax_default_matmul_precision": "bfloat16",
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_disable_jit": True,
    "jax_transfer_guard_host_to_device": "disallow",
}
"""Options that a calling program may have set. Each alone changes the weights or makes the run fail."""


@contextmanager
def configured(values: dict[str, Any]) -> Iterator[None]:
    """Set options of JAX in this thread, and restore the process's configuration afterwards."""
    holders: Any = jax.config
    with ExitStack() as stack:
        for name, value in values.items():
            stack.enter_context(holders._value_holders[name](value))
        yield


def weights(batched: bool) -> dict[str, Any]:
    lanes = Lanes(ProgramKey.of(TINY, SMALL), batched)
    lane = lanes.admit(TINY, SMALL)
    lanes.train(4)
    assert lanes.progress(lane).epoch == 16
    state = lanes.state(lane)
    assert set(lanes.final_metrics(lane)) == {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    assert lanes.spectrum(lane).dtype == np.float32
    other = Lanes(ProgramKey.of(TINY, SMALL), batched, lanes.program)
    assert other.progress(other.admit(TINY, SMALL, state)).ended
    return state


@pytest.mark.slow  # pytest --fast would compile once for both configurations
@pytest.mark.parametrize("batched", [False, True])
def test_weights_do_not_depend_on_jax_s_configuration(batched: bool) -> None:
    plain = weights(batched)
    with configured(FOREIGN):
        foreign = weights(batched)
    assert plain.keys() == foreign.keys()
    for name, array in plain.items():
        assert array.dtype == foreign[name].dtype, name
        np.testing.assert_array_equal(array, foreign[name], err_msg=name)


def test_what_is_pinned_is_jax_s_default() -> None:
    """Pinning therefore does not change earlier results."""
    holders: Any = jax.config
    for name, value in PINNED.items():
        if not name.startswith("jax_transfer_guard"):  # unset, which allows
            assert holders._value_holders[name].value == value, name


def test_a_caller_s_configuration_is_left_as_it_was() -> None:
    holders: Any = jax.config
    with configured(FOREIGN):
        with pinned_numerics():
            assert {name: holders._value_holders[name].value for name in FOREIGN} == {
                name: PINNED[name] for name in FOREIGN
            }
        assert holders._value_holders["jax_enable_x64"].value is True


def test_what_is_removed_from_the_environment() -> None:
    kept = {
        "HOME": "/root",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": "/cache",
        "CUDA_VISIBLE_DEVICES": "0",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5",
    }
    environment = {
        **kept,
        "JAX_ENABLE_X64": "1",
        "JAX_OF_A_LATER_VERSION": "yes",
        "NVIDIA_TF32_OVERRIDE": "1",
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=true --xla_force_host_platform_device_count=4",
    }
    assert remove_unsafe_variables(environment) == [
        "JAX_ENABLE_X64=1",
        "JAX_OF_A_LATER_VERSION=yes",
        "NVIDIA_TF32_OVERRIDE=1",
        "XLA_FLAGS=--xla_cpu_enable_fast_math=true",
    ]
    assert environment == {**kept, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    assert remove_unsafe_variables(environment) == []
    assert remove_unsafe_variables({"XLA_FLAGS": "/a/file/of/flags"}) == ["XLA_FLAGS=/a/file/of/flags"]


def test_the_numerics_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/dump")
    assert describe_numerics() == {
        "enable_x64": False,
        "default_prng_impl": "threefry2x32",
        "threefry_partitionable": True,
        "xla_flags": "--xla_dump_to=/tmp/dump",
    }
