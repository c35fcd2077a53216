"""JAX's configuration, pinned for everything that a result depends on."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")

PINNED: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_threefry_gpu_kernel_lowering": False,
    "jax_random_seed_offset": 0,
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_high_dynamic_range_gumbel": False,
    "jax_default_matmul_precision": None,  # `Program` names one for each of its products
    "jax_allow_f16_reductions": True,
    "jax_softmax_custom_jvp": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_enable_checks": False,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_compiler_enable_remat_pass": True,
    "jax_enable_pgle": False,
    "jax_default_device": None,
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
}
"""JAX's defaults, as of 0.10, of the options that change results or can make a computation fail."""

RECORDED = ("enable_x64", "default_prng_impl", "threefry_partitionable")
"""The options of `PINNED` that a result is recorded with. The others do not change a result in normal use."""


@contextmanager
def pinned_numerics() -> Iterator[None]:
    """Compute with the configuration `PINNED` in this thread, whatever the calling program has configured."""
    configured: Any = jax.config
    with ExitStack() as stack:
        for name, value in PINNED.items():
            holder = configured._value_holders.get(name)
            if holder is None or holder.value == value:
                continue
            if callable(holder):  # for this thread, until the context ends
                stack.enter_context(holder(value))
            else:  # for the process
                configured.update(name, value)
        yield


def pinned(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that computes or compiles, so that it runs within `pinned_numerics`."""

    @functools.wraps(function)
    def compute(*arguments: P.args, **named: P.kwargs) -> T:
        with pinned_numerics():
            return function(*arguments, **named)

    return compute


def describe_numerics() -> dict[str, Any]:
    """Return the numeric configuration that is recorded with a result."""
    return {
        **{name.removeprefix("jax_"): PINNED[f"jax_{name}"] for name in RECORDED},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
