"""Keeps the user's environment from deciding what is computed. Imports no JAX: it must act before JAX is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from miiii_search.errors import MiiiiSearchError

ALLOWED = frozenset(
    {
        *("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_CUDA_VISIBLE_DEVICES", "JAX_ROCM_VISIBLE_DEVICES"),
        *("JAX_NUM_CPU_DEVICES", "JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE"),
        *("JAX_ENABLE_COMPILATION_CACHE", "JAX_LOGGING_LEVEL", "JAX_LOG_COMPILES", "JAX_EXPLAIN_CACHE_MISSES"),
        *("JAX_TRACEBACK_FILTERING", "JAX_DUMP_IR_TO"),
    }
)
"""JAX's variables that say where it computes and what it logs, not what it computes."""

ALLOWED_XLA_FLAGS = ("--xla_force_host_platform_device_count=", "--xla_gpu_cuda_data_dir=", "--xla_dump_")
"""XLA's flags of the same kind."""

OTHERS = frozenset(
    {
        *("CHECK_VMA", "EAGER_CONSTANT_FOLDING"),  # JAX's, too
        *("NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    }
)
"""Variables of other names that change how JAX and its libraries compute."""


def remove_unsafe_variables(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Removes from the environment what could change a result; returns it as `NAME=value`.

    To be called before JAX is imported. JAX reads its variables when it is imported, XLA its flags when the first
    device is opened. What is not known to be harmless is removed, so that a variable of a newer JAX is, too.
    """
    removed = []
    for name, value in sorted(environment.items()):
        if (name.startswith("JAX_") and name not in ALLOWED) or name in OTHERS:
            removed.append(f"{name}={value}")
            del environment[name]
    flags = environment.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if flag.startswith(ALLOWED_XLA_FLAGS)]
    if kept != flags:
        removed += [f"XLA_FLAGS={flag}" for flag in flags if flag not in kept]
        environment["XLA_FLAGS"] = " ".join(kept)
    return removed


def import_jax() -> None:
    """Imports JAX. Raises `MiiiiSearchError` if it does not understand one of the variables that it is left."""
    try:
        import jax  # noqa: F401
    except ValueError as error:
        raise MiiiiSearchError(f"JAX cannot be imported with this environment: {error}") from None
