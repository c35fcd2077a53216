"""The device that trains, JAX's compilation cache, and errors for lack of memory."""

from __future__ import annotations

import logging
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from miiii_search.environment import cache_folder
from miiii_search.errors import MiiiiSearchError

OUT_OF_MEMORY = "out of memory|RESOURCE_EXHAUSTED|OUT_OF_MEMORY|ALLOC_FAILED|YNNPACK operation failed"
"""Messages of XLA, CUDA and their libraries. XLA reports lack of memory during a computation as an internal error."""

PACKAGES = ("miiii-search", "jax", "jaxlib", "flax", "optax", "numpy")


def use_compilation_cache() -> Path | None:
    """Make JAX keep compiled programs in a folder, for other processes.

    Returns:
        The folder: that of `JAX_COMPILATION_CACHE_DIR`, or one in the user's cache folder. None if there is neither.
    """
    named, default = os.environ.get("JAX_COMPILATION_CACHE_DIR"), cache_folder()
    folder = Path(named) if named else default and default / "jax"
    config: Any = jax.config
    config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # by default JAX does not cache small programs
    return folder


def choose_device(kind: str) -> None:
    """Make JAX compute on a kind of device. Call this before anything is computed.

    Args:
        kind: `cpu`, `cuda`, or `auto` for whatever JAX finds.

    Raises:
        MiiiiSearchError: There is no such device. So a worker for GPUs never trains on the CPU unnoticed.
    """
    if kind not in ("auto", "cpu", "cuda"):
        raise MiiiiSearchError(f"--device must be auto, cpu or cuda, but is `{kind}`")
    if kind == "auto":
        return
    config: Any = jax.config
    config.update("jax_platforms", "cpu" if kind == "cpu" else "cuda,cpu")
    # JAX logs a missing library of its plugin as a traceback. It is hidden here; the command `doctor` shows it.
    logger = logging.getLogger("jax._src.xla_bridge")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        found = jax.default_backend()  # JAX skips platforms that are not installed
    except (RuntimeError, AssertionError):
        found = "none"
    finally:
        logger.setLevel(level)
    if kind == "cuda" and found != "gpu":
        raise MiiiiSearchError(
            "this worker is for CUDA, but sees no GPU: check that nvidia-smi works here, and that the container may "
            "use the GPUs; or set MIIII_DEVICE=cpu to train on the CPU; miiii-search doctor tells more"
        )


def describe_device() -> str:
    """Return the device that JAX computes on, in words.

    Raises:
        MiiiiSearchError: JAX finds no device.
    """
    try:
        device = jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # the latter if a platform of JAX_PLATFORMS is not installed
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = f"JAX finds no device of the kind `{wanted}`" if wanted else f"JAX finds no device ({error})"
        raise MiiiiSearchError(
            f"{reason}; JAX_PLATFORMS=cpu trains on the CPU, miiii-search doctor tells more"
        ) from None
    if device.platform == "cpu":
        return f"cpu ({platform.machine()}, {count_cores()} cores)"
    return f"{device.platform} ({device.device_kind})"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device or the host has run out of memory."""
    known = isinstance(error, MemoryError | jax.errors.JaxRuntimeError)
    return known and (isinstance(error, MemoryError) or bool(re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE)))


def count_cores() -> int:
    """Return the number of cores that this process may use. `taskset` and a container's cpuset limit them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
