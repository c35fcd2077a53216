"""Trains two small runs as `train` does, exports them for TransformerLens, and writes our own logits beside.

.venv/bin/python tests/outside/export_runs.py FOLDER
"""

import sys
from pathlib import Path

import jax
import numpy as np

from miiii_search.cli.views.export_weights import export_weights
from miiii_search.cli.views.train import choose_configuration, train_to_folder
from miiii_search.experiment.digits import digits
from miiii_search.runs.run_folder import read_run
from miiii_search.training.model import transformer_from_weights

RUNS = {
    "nanda": ["experiment.p=31"],  # the demo's best, which groks
    "miiii": ["experiment.task=miiii", "experiment.p=13", "experiment.validation_samples=30", "experiment.epochs=1024"],
}


def main(folder: Path) -> None:
    for name, settings in RUNS.items():
        train_to_folder(
            choose_configuration(None, "demo", "demo-best", settings), folder / name, compare_with_recorded=False
        )
        run, problems = read_run(folder / name)
        export_weights(run, problems, "transformer-lens", folder / name / "network.safetensors")
        x = digits(run.experiment.p)
        logits = jax.jit(lambda weights, x: transformer_from_weights(weights)(x)["logits"])(run.weights, x)  # [Σq, p²]
        np.save(folder / name / "logits.npy", np.asarray(logits).T)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
