"""Real allocations that fail because the memory is too small. See also tests/integration/test_limits.py."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

from miiii_search.testing.processes import LIMIT_SECONDS
from miiii_search.training.device import is_out_of_memory

pytestmark = pytest.mark.process


def test_batched_lanes_that_do_not_fit() -> None:
    """Runs are saved before a wider program is tried, and continue from there if it does not fit."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.out_of_memory"],
        # The address space is limited: no arenas per thread, and freed memory is returned.
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("went on")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes."), True),
        (
            jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 4 bytes."),
            True,
        ),
        (jax.errors.JaxRuntimeError("INTERNAL: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (jax.errors.JaxRuntimeError("INTERNAL: something else"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_of_memory(error: BaseException, expected: bool) -> None:
    """The first two messages were observed. Those of CUDA are taken from its documentation."""
    assert is_out_of_memory(error) == expected
