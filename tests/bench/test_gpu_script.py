"""`bench/gpu.sh` with a stub of Python: a part that fails or has no time left does not stop the others."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ["versions", "speeds", "precision", "refill", "workers", "tests"]

STUB = """#!/usr/bin/env bash
echo "$@"
case "$*" in
  *precision*) exit 3;;
  *-c*) exit {no_gpu};;
esac
"""


def run(tmp_path: Path, *arguments: str, no_gpu: int = 0, **environment: str) -> tuple[int, list[dict[str, object]]]:
    stubs, results = tmp_path / "bin", tmp_path / "results"
    stubs.mkdir()
    (stubs / "python").write_text(STUB.format(no_gpu=no_gpu))
    (stubs / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "bench" / "gpu.sh"), *arguments, str(results)],
        env={**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}", **environment},
        capture_output=True,
        timeout=60,
    )
    written = results / "parts.jsonl"
    parts = [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
    return done.returncode, parts


def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    code, parts = run(tmp_path)
    assert code == 1
    assert [part["part"] for part in parts] == PARTS
    assert {part["part"]: part["exit"] for part in parts} == dict.fromkeys(PARTS, "0") | {"precision": "3"}
    assert "gpu_speeds.py" in (tmp_path / "results" / "speeds.txt").read_text()


def test_parts_without_time_are_skipped(tmp_path: Path) -> None:
    code, parts = run(tmp_path, GPU_SECONDS="0")
    assert code == 1
    assert [part["exit"] for part in parts] == ["skipped"] * len(PARTS)


def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    code, parts = run(tmp_path, no_gpu=1)
    assert code == 2
    assert [part["part"] for part in parts] == ["versions"]


def test_small_runs_need_no_gpu(tmp_path: Path) -> None:
    code, parts = run(tmp_path, "--small", no_gpu=1)
    assert code == 1 and len(parts) == len(PARTS)
    assert "--small" in (tmp_path / "results" / "workers.txt").read_text()
    assert "--small" in (tmp_path / "results" / "refill.txt").read_text()
