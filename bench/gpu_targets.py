"""The GPUs that programs are compiled for without one, as JAX's compiler wants them described."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

TARGETS_FILE = Path(__file__).with_name("gpu_targets.toml")

CUDNN = (9, 28, 1)
"""The version of cuDNN in requirements/cuda.lock."""

DESCRIPTION = """
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: {multiprocessors}
  fpus_per_core: {cores_per_multiprocessor}
  clock_rate_ghz: {clock_ghz}
  device_memory_size: {memory}
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2}
  shared_memory_per_core: {shared}
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {shared_per_block}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: {threads_per_multiprocessor}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} patch: {cudnn[2]} }}
device_description_str: "{name}"
"""
"""A `GpuTargetConfigProto` of XLA in text format. A *core* is what NVIDIA calls a multiprocessor."""


@dataclass(frozen=True)
class GpuTarget:
    """A GPU, by its published numbers."""

    key: str
    numbers: dict[str, Any]
    """The fields of `gpu_targets.toml`."""

    @property
    def memory(self) -> int:
        """Memory in bytes."""
        return int(self.numbers["memory_gb"] * 1e9)

    @property
    def bandwidth(self) -> float:
        """Bandwidth of the memory in bytes per second."""
        return float(self.numbers["bandwidth_tb"] * 1e12)

    def flops(self, precision: str) -> float:
        """Return the arithmetic of matrix products per second in a precision."""
        return float(self.numbers["tflops"][precision] * 1e12)

    def description(self) -> str:
        """Return the description for XLA."""
        major, minor = self.numbers["compute_capability"]
        return DESCRIPTION.format(
            major=major,
            minor=minor,
            memory=self.memory,
            bandwidth=int(self.bandwidth),
            l2=self.numbers["l2_mib"] * 2**20,
            shared=self.numbers["shared_kib_per_multiprocessor"] * 2**10,
            shared_per_block=self.numbers["shared_kib_per_block"] * 2**10,
            cudnn=CUDNN,
            **self.numbers,
        )

    def mesh(self, devices: int = 1) -> Mesh:
        """Return devices of this kind as a mesh along the axis `lanes`. They can be compiled for, and run nothing.

        Raises:
            RuntimeError: This JAX has no compiler for NVIDIA GPUs.
        """
        from jax.experimental import topologies

        topology = topologies.get_topology_desc(
            platform="cuda", target_config=self.description(), topology=f"1x1x{devices}"
        )
        return Mesh(np.asarray(topology.devices), ("lanes",))


def gpu_targets() -> dict[str, GpuTarget]:
    """Return all targets by key."""
    return {key: GpuTarget(key, numbers) for key, numbers in tomllib.loads(TARGETS_FILE.read_text()).items()}


def has_cuda_compiler() -> bool:
    """Return whether this JAX can compile for NVIDIA GPUs."""
    try:
        next(iter(gpu_targets().values())).mesh()
    except (RuntimeError, jax.errors.JaxRuntimeError):
        return False
    return True
