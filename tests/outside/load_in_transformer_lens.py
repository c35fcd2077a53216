"""Loads what export_runs.py wrote by the lines of docs/how-to/export-weights.md, and compares logits on all p² inputs.

Runs where TransformerLens is installed and miiii-search need not be:

    .venv-transformer-lens/bin/python tests/outside/load_in_transformer_lens.py FOLDER
"""

import os
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "export-weights.md"
TOLERANCE = 1e-4
"""Tolerance relative to the largest logit: both sides compute in float32, in another order."""


def run_documented_lines(folder: Path) -> dict[str, Any]:
    """Return the variables of the page's Python code, run in `folder`."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1, f"{PAGE} must show one way to load"
    os.chdir(folder)
    left: dict[str, Any] = {}
    exec(compile(blocks[0], str(PAGE), "exec"), left)
    return left


def relative_difference(logits: torch.Tensor, expected: NDArray[np.float32]) -> float:
    return float(np.abs(logits.detach().cpu().numpy() - expected).max() / np.abs(expected).max())


def main(folder: Path) -> None:
    print(f"TransformerLens {version('transformer-lens')}, torch {torch.__version__}")
    for run in sorted(path.resolve() for path in folder.iterdir()):
        expected = np.load(run / "logits.npy")
        left = run_documented_lines(run)
        model, logits, moduli = left["model"], left["logits"], [task.shape[1] for task in left["by_task"]]
        assert logits.shape == expected.shape
        difference = relative_difference(logits, expected)
        pieces = np.split(expected, np.cumsum(moduli)[:-1], axis=1)
        same = [
            (theirs.argmax(1).cpu().numpy() == ours.argmax(1)).mean()
            for theirs, ours in zip(left["by_task"], pieces, strict=True)
        ]
        # The same network with its attention scores not divided: how far off a wrong convention would be.
        model.blocks[0].attn.attn_scale = 1.0
        undivided = relative_difference(model(left["tokens"])[:, -1], expected)
        print(
            f"{run.name}: p = {left['p']}, {len(expected):,} inputs, {len(moduli)} tasks, "
            f"largest logit {np.abs(expected).max():.1f}, largest difference {difference:.1e} of it, "
            f"same answers {min(same):.2%}; with attention not scaled {undivided:.1e}"
        )
        assert difference < TOLERANCE < undivided


if __name__ == "__main__":
    main(Path(sys.argv[1]))
