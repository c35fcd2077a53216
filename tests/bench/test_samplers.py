"""The benchmark of samplers on hand-made curves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from miiii_search.config.search_space import Point
from miiii_search.simulation.curves import write_curves
from miiii_search.testing.processes import LIMIT_SECONDS
from tests.simulation.landscape import landscape

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).parents[2] / "bench" / "samplers.py"


def test_samplers_from_end_to_end(tmp_path: Path) -> None:
    curves = landscape(lambda point: 0.9 if point["learning_rate"] == 1e-2 else 0.05)
    few = replace(curves.subset(curves.curves[:4]), name="few")
    write_curves(tmp_path / "curves.npz", [curves, few])
    done = subprocess.run(
        [
            *(sys.executable, SCRIPT, "--curves", tmp_path / "curves.npz", "--draws", "2"),
            *("--json", tmp_path / "samplers.json", "--figure", tmp_path / "samplers.png"),
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "few: only 4 configurations, left out" in done.stdout
    assert (tmp_path / "samplers.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((tmp_path / "samplers.json").read_text())
    settings = figures["samplers"]
    assert [(one["set"], one["rule"], one["lanes"]) for one in settings] == [
        ("landscape", rule, lanes) for rule in ("none", "forecast") for lanes in (1, 4, 8)
    ]
    for one in settings[:3]:
        for order in one["best"]["orders"].values():
            assert order["found"] == 1
            assert order["epochs"]["median"] == pytest.approx(one["lanes"] * order["wall_epochs"]["median"])
    assert settings[0]["best"]["saved"].keys() == {"tpe", "grid_ei", "grid_ei to tpe"}


def slope(point: Point) -> float:
    """Best at the highest rate with most decay, where a run is solved before the rule looks at it."""
    return 0.65 + 20 * float(point["learning_rate"]) + 0.1 * float(point["weight_decay"]) - float(point["dropout"])


def test_compiled_shapes_that_count_more_are_left_less_often(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves.npz", [landscape(slope)])
    script = [sys.executable, str(SCRIPT), "--curves", str(tmp_path / "curves.npz"), "--draws", "8", "--shapes"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    [one_lane] = re.findall(r"learning_rate +1 (.*)", done.stdout)
    saved = [int(found) for found in re.findall(r"(-?\d+)%", one_lane)]
    changes = [float(found) for found in re.findall(r"([\d.]+) changes", one_lane)]
    assert len(saved) == len(changes) == 5
    assert saved[0] > saved[-1] and changes[0] >= changes[-1]
