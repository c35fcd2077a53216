"""The user's own settings for figures: no command sees them, and no result is lost to it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from miiii_search.testing.processes import COMMAND, LIMIT_SECONDS, TINY, Processes, clean_environment

TRAIN = ("train", "--preset", "demo", *TINY)


def settings(folder: Path) -> dict[str, str]:
    """A notebook's backend, LaTeX that is not there, fonts that are not there, a cache that cannot be made."""
    (folder / "matplotlibrc").write_text("text.usetex: True\nfont.family: Nowhere Sans\nsavefig.dpi: 5\n")
    (folder / "file").touch()
    return {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": str(folder),
        "MPLCONFIGDIR": str(folder / "file"),
    }


def test_train_sees_no_settings(processes: Processes, tmp_path: Path) -> None:
    for out, environment in (("plain", {}), ("set", settings(tmp_path))):
        done = subprocess.run(
            [*COMMAND, *TRAIN, "--out", out],
            cwd=tmp_path,
            env=clean_environment("sqlite:///study.db") | processes.environment | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )
        assert done.returncode == 0 and done.stderr == "" and "warning" not in done.stdout, done.stdout + done.stderr
    curves = [hashlib.sha256((tmp_path / out / "learning-curves.png").read_bytes()) for out in ("plain", "set")]
    assert curves[0].digest() == curves[1].digest()


def test_a_worker_and_simulate_see_no_settings(processes: Processes, tmp_path: Path) -> None:
    """In a study whose name matplotlib would take for mathematics."""
    processes.environment |= settings(tmp_path)
    storage, name = f"sqlite:///{tmp_path}/study.db", r"_$\frac$ 研"
    grid = ("--trials", "2", "--set", "pruning.rule=none")
    processes.run("up", "--no-dashboard", "--preset", "demo", "--study", name, *TINY, *grid, storage=storage)
    assert "metrics" in (tmp_path / f"{name}-best.toml").read_text()
    processes.run("simulate", "--study", name, "--replays", "1", storage=storage)
    assert (tmp_path / f"{name}-rules.png").read_bytes().startswith(b"\x89PNG")
