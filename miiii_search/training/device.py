"""Which device trains, and the compilation cache beside it."""

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
"""How XLA, CUDA and their libraries say it. Where a computation was under way, XLA calls it an internal error."""

PACKAGES = ("miiii-search", "jax", "jaxlib", "flax", "optax", "numpy")


def use_compilation_cache() -> Path | None:
    """Lets JAX keep compiled programs between processes; returns the folder, or None for a user who has none.

    `JAX_COMPILATION_CACHE_DIR` moves it; the default is the user's cache folder.
    """
    named, default = os.environ.get("JAX_COMPILATION_CACHE_DIR"), cache_folder()
    folder = Path(named) if named else default and default / "jax"
    config: Any = jax.config
    config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # else small programs are compiled anew
    return folder


def choose_device(kind: str) -> None:
    """Has JAX compute on this kind of device: `cpu`, `cuda`, or `auto` for what it finds. Before anything computes.

    Raises `MiiiiSearchError` if there is none: what was made for a GPU is not to train on the CPU unnoticed.
    """
    if kind not in ("auto", "cpu", "cuda"):
        raise MiiiiSearchError(f"--device must be auto, cpu or cuda, but is `{kind}`")
    if kind == "auto":
        return
    config: Any = jax.config
    config.update("jax_platforms", "cpu" if kind == "cpu" else "cuda,cpu")
    # What JAX tells of its plugin is a traceback that ends in a library's name; `doctor` shows it.
    logger = logging.getLogger("jax._src.xla_bridge")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        found = jax.default_backend()  # JAX passes over what is not installed
    except (RuntimeError, AssertionError):
        found = "none"
    finally:
        logger.setLevel(level)
    if kind == "cuda" and found != "gpu":
        raise MiiiiSearchError(
            "this worker is for CUDA, but sees no GPU: see that nvidia-smi works here, and that a container is given "
            "the GPUs; or set MIIII_DEVICE=cpu to train on the CPU; miiii-search doctor tells more"
        )


def describe_device() -> str:
    """The device that JAX computes on, in words. Raises `MiiiiSearchError` if there is none."""
    try:
        device = jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # the latter where JAX_PLATFORMS names what is not installed
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = f"JAX finds no device of the kind `{wanted}`" if wanted else f"JAX finds no device ({error})"
        raise MiiiiSearchError(
            f"{reason}; JAX_PLATFORMS=cpu trains on the CPU, miiii-search doctor tells more"
        ) from None
    if device.platform == "cpu":
        return f"cpu ({platform.machine()}, {cores()} cores)"
    return f"{device.platform} ({device.device_kind})"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host beside it, could not hold what it was to hold."""
    known = isinstance(error, MemoryError | jax.errors.JaxRuntimeError)
    return known and (isinstance(error, MemoryError) or bool(re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE)))


def cores() -> int:
    """How many cores this process may compute on: what `taskset` and a container's cpuset leave it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def package_versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
