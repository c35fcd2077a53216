"""Question: on what does this benchmark run?

    python bench/gpu_versions.py [--json FILE]

Prints the commit, the versions of packages, what JAX sees, and what the driver says about the GPU.
"""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import distributions
from typing import Any

import jax
from measuring import describe_machine, make_parser, parse_arguments, write_json


def run(*command: str) -> str | None:
    """Return what a command prints, or None if it does not run here."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def main() -> None:
    arguments = parse_arguments(make_parser(__doc__, "no difference"))
    figures: dict[str, Any] = {
        "commit": run("git", "rev-parse", "HEAD"),
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "platform_version": jax.devices()[0].client.platform_version,
        "memory": jax.devices()[0].memory_stats(),
        "nvidia_smi": run("nvidia-smi"),
        "packages": {found.name: found.version for found in distributions()},
    }
    write_json(arguments.json, figures)
    print(json.dumps({**figures, "machine": describe_machine()}, indent=1))


if __name__ == "__main__":
    main()
