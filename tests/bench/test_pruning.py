"""The evaluation of pruners: the split of the curves, and the results of the default on the recorded curves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pruning
import pytest

from miiii_search.config.search_space import Point
from miiii_search.config.study_sections import Pruning
from miiii_search.simulation.curves import read_curves
from miiii_search.simulation.pruner_variants import pruner_variants
from miiii_search.testing.processes import LIMIT_SECONDS

BENCH = Path(pruning.__file__).parent


def test_the_split_is_unchanged() -> None:
    """Counts of configurations, and four of them by name; all seeds of one are in the same half."""
    halves: dict[str, dict[str, set[str]]] = {}
    for curves in read_curves(pruning.BANK):
        for curve in curves.curves:
            half = pruning.split(curves.name, curve.point)
            name = json.dumps(curve.point, sort_keys=True)
            halves.setdefault(curves.name, {}).setdefault(half, set()).add(name)
    counts = {name: {half: len(points) for half, points in found.items()} for name, found in halves.items()}
    assert counts["nanda-31"] == {"tuning": 26, "evaluation": 22}
    assert sum(counts["miiii-43"].values()) == 24 and counts["nanda-53"] == {"evaluation": 24}
    assert counts["nanda-113"] == {"tuning": 8} and counts["nanda-97"] == {"evaluation": 12}
    both = halves["nanda-31"]
    assert not both["tuning"] & both["evaluation"]
    point: Point = {"learning_rate": 0.001, "grokfast_lambda": 0.0, "weight_decay": 1.0, "dropout": 0.1}
    assert pruning.split("nanda-31", point) == "tuning"
    assert pruning.split("nanda-31", {**point, "weight_decay": 0.5}) == "evaluation"
    assert pruning.split("nanda-53", point) == "evaluation"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("rules")
    script = [sys.executable, str(BENCH / "pruning.py"), "--quick", "--json", "rules.json", "--figures", "figures"]
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    for name in ("rules.png", "curves.png"):
        assert (folder / "figures" / name).read_bytes().startswith(b"\x89PNG")
    found: dict[str, object] = json.loads((folder / "rules.json").read_text())
    return found


@pytest.mark.process
def test_what_the_file_holds(figures: dict[str, object]) -> None:
    keys = ("epochs_share", "grokkers_lost", "top10_lost")
    rules = figures["rules"]
    assert isinstance(rules, dict)
    assert set(rules) == {one.name for one in pruner_variants()}
    for rule in rules.values():
        assert set(rule) == set(keys) and all(0 <= rule[key] <= 1 for key in keys)
    assert {key: figures[key] for key in keys} == rules["forecast"]
    assert rules["none"]["grokkers_lost"] == 0


@pytest.mark.process
def test_the_default_pruner_keeps_its_promises(figures: dict[str, object]) -> None:
    """None of the ten fastest lost, 2 % of the grokkers at most, and less than every rule that loses as few."""
    rules = figures["rules"]
    assert isinstance(rules, dict)
    assert Pruning().rule == pruning.DEFAULT == "forecast"
    ours = rules["forecast"]
    assert ours["top10_lost"] == 0 and ours["grokkers_lost"] <= 0.02
    others = [f for name, f in rules.items() if not name.startswith("forecast") and f["grokkers_lost"] <= 0.02]
    assert ours["epochs_share"] < min(f["epochs_share"] for f in others)
