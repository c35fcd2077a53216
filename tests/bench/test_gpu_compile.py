"""The batched program, compiled for a GPU: what must not regress. Nothing is run."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_compile import Configuration, measure
from gpu_targets import has_cuda_compiler

pytestmark = pytest.mark.gpu_compile

MAX_KERNELS = 102
MAX_BYTES_PER_LANE = 615_000_000


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    if not has_cuda_compiler():
        pytest.skip("JAX has no compiler for NVIDIA GPUs here: make test-gpu-compile")


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return measure(Configuration())


def test_kernels_and_traffic_of_an_epoch(figures: dict[str, Any]) -> None:
    assert 0 < figures["kernels_per_epoch"] <= MAX_KERNELS
    assert 0 < figures["bytes_per_lane_epoch"] <= MAX_BYTES_PER_LANE


def test_the_arithmetic_is_what_training_needs(figures: dict[str, Any]) -> None:
    assert 22.3 <= figures["gflop_per_lane_epoch"] <= 24


def test_donated_states_are_reused(figures: dict[str, Any]) -> None:
    assert figures["aliased_arrays"] == figures["state_arrays"]


def test_lanes_fit(figures: dict[str, Any]) -> None:
    assert figures["memory_per_lane"] <= 110_000_000
    assert figures["lanes_that_fit"] >= 384


@pytest.mark.parametrize("configuration", [Configuration("a100", 128, 2, "bf16", devices=4)])
def test_devices_do_not_communicate(configuration: Configuration, figures: dict[str, Any]) -> None:
    assert figures["collectives"] == 0
    assert measure(configuration)["collectives"] == 0
