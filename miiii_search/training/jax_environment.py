"""Protection of results from environment variables that change how JAX computes.

This module does not import JAX, since it must act before JAX is imported.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from miiii_search.errors import MiiiiSearchError

ALLOWED_JAX_VARIABLES = frozenset(
    {
        *("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_CUDA_VISIBLE_DEVICES", "JAX_ROCM_VISIBLE_DEVICES"),
        *("JAX_NUM_CPU_DEVICES", "JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE"),
        *("JAX_ENABLE_COMPILATION_CACHE", "JAX_LOGGING_LEVEL", "JAX_LOG_COMPILES", "JAX_EXPLAIN_CACHE_MISSES"),
        *("JAX_TRACEBACK_FILTERING", "JAX_DUMP_IR_TO"),
    }
)
"""JAX's variables that decide where it computes and what it logs, but not what it computes."""

ALLOWED_XLA_FLAGS = ("--xla_force_host_platform_device_count=", "--xla_gpu_cuda_data_dir=", "--xla_dump_")
"""XLA's flags of the same kind."""

OTHER_UNSAFE_VARIABLES = frozenset(
    {
        *("CHECK_VMA", "EAGER_CONSTANT_FOLDING"),  # also JAX's
        *("NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    }
)
"""Variables with other prefixes that change how JAX and its libraries compute."""


def remove_unsafe_variables(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Remove variables and XLA flags that could change a result.

    Call this before JAX is imported: JAX reads its variables at import, and XLA its flags when it opens the first
    device. All variables of JAX that are not known to be harmless are removed, including those of newer versions.

    Args:
        environment: The variables. They are changed in place.

    Returns:
        What was removed, each as `NAME=value`.
    """
    removed = []
    for name, value in sorted(environment.items()):
        if (name.startswith("JAX_") and name not in ALLOWED_JAX_VARIABLES) or name in OTHER_UNSAFE_VARIABLES:
            removed.append(f"{name}={value}")
            del environment[name]
    flags = environment.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if flag.startswith(ALLOWED_XLA_FLAGS)]
    if kept != flags:
        removed += [f"XLA_FLAGS={flag}" for flag in flags if flag not in kept]
        environment["XLA_FLAGS"] = " ".join(kept)
    return removed


def import_jax() -> None:
    """Import JAX.

    Raises:
        MiiiiSearchError: JAX rejects the value of a variable that was not removed.
    """
    try:
        import jax  # noqa: F401
    except ValueError as error:
        raise MiiiiSearchError(f"JAX cannot be imported with this environment: {error}") from None
