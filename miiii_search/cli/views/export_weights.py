"""The command `export-weights`: the weights of a trained network as a file for other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.analysis.transformer_lens import to_config, to_state_dict
from miiii_search.cli.output import check_choice, write_out
from miiii_search.config.overrides import to_tree
from miiii_search.errors import MiiiiSearchError
from miiii_search.runs.run_folder import WEIGHTS

FORMATS = ("transformer-lens", "safetensors")


def export_weights(run: TrainedRun, problems: Sequence[str], format: str, out: Path) -> list[str]:
    """Write the final weights of a run to a safetensors file.

    The metadata of the file are `moduli`, `experiment` and `hyperparameters`, each as JSON, and `classes` if these are
    not the moduli. In the format `transformer-lens`, arrays have the names and shapes of HookedTransformer, and its
    configuration is the metadata `config`. In the format `safetensors`, they have the names and shapes of this program.
    An existing file is replaced.

    Args:
        run: The run.
        problems: Lines about files of the run that could not be read.
        format: `transformer-lens` or `safetensors`.
        out: The file.

    Returns:
        Those of the `problems` that concern the weights.

    Raises:
        MiiiiSearchError: The format is unknown, the run has no weights, or `out` cannot be written.
    """
    check_choice("--format", format, FORMATS)
    if run.weights is None:
        why = next((line for line in problems if WEIGHTS in line), f"{run.name} has no {WEIGHTS}")
        raise MiiiiSearchError(f"{why}; train it again with miiii-search train")
    if run.folder is not None and out.resolve() == (run.folder / WEIGHTS).resolve():
        raise MiiiiSearchError(f"{out} holds the run's own weights and would be overwritten; choose another --out")
    metadata: dict[str, Any] = {
        "moduli": run.experiment.task_moduli,
        "experiment": to_tree(run.experiment),
        "hyperparameters": to_tree(run.hyperparameters),
    }
    if run.experiment.classes != run.experiment.task_moduli:
        metadata["classes"] = run.experiment.classes
    arrays = run.weights
    if format == "transformer-lens":
        arrays, metadata = to_state_dict(run.weights), metadata | {"config": to_config(run.weights)}
    written = save(dict(arrays), {key: json.dumps(value) for key, value in metadata.items()})
    write_out(out, written)
    return [line for line in problems if line.startswith(WEIGHTS)]
