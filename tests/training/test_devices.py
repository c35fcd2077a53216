"""One worker uses all devices: lanes are split over them, and the devices do not communicate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from miiii_search.testing.processes import LIMIT_SECONDS

pytestmark = pytest.mark.process


def test_four_devices_are_four_times_one() -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.several_devices"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 4
    assert found["placed_on"] == [0, 1, 2, 3]
    # A program for four devices fuses the same sums differently; see test_batched_lanes_agree_with_sequential_ones.
    assert len(found["distances"]) == 7
    assert max(found["distances"]) < 1e-4
    assert sorted(found["distances"])[3] < 1e-6
    assert found["widths"] == [4, 8]
    assert found["collectives"] == []
    assert found["test_accuracy"] == 4  # one a task: q = 2, 3, 5, 7
    assert found["spectrum"] == [11, 6]
    assert found["epochs"] == [200, 10, 200, 200, 10]
