"""A trained network's weights as a file for other tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from miiii_search.analysis.transformer_lens import to_config, to_state_dict
from miiii_search.errors import UserError
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.search.export import Configuration, read_configuration
from miiii_search.search.settings import to_tree

FORMATS = ("transformer-lens", "safetensors")


def export_weights(run_folder: Path, format: str, out: Path) -> None:
    """Writes the weights of a folder that `train` wrote to `out`, one safetensors file in either format.

    `transformer-lens`: HookedTransformer's names and shapes, its configuration in the metadata `config`.
    `safetensors`: our names and shapes. The metadata of both hold `moduli`, `experiment` and
    `hyperparameters`, all as JSON. The same export twice writes the same network over the first.

    Raises `UserError` for another format, a folder that holds no whole run, or an `out` that cannot be written.
    """
    if format not in FORMATS:
        raise UserError(f"--format must be {' or '.join(FORMATS)}, but is `{format}`")
    configuration, weights = read_run(run_folder)
    if out.resolve() == (run_folder / "weights.safetensors").resolve():
        raise UserError(f"{out} holds the run's own weights and would be overwritten; choose another --out")
    metadata: dict[str, Any] = {
        "moduli": configuration.experiment.moduli,
        "experiment": to_tree(configuration.experiment),
        "hyperparameters": to_tree(configuration.hyperparameters),
    }
    arrays: Mapping[str, NDArray[Any]] = weights
    if format == "transformer-lens":
        arrays, metadata = to_state_dict(weights), metadata | {"config": to_config(weights)}
    written = save(dict(arrays), {key: json.dumps(value) for key, value in metadata.items()})
    try:
        out.write_bytes(written)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None


def read_run(folder: Path) -> tuple[Configuration, dict[str, NDArray[np.float32]]]:
    """What a run folder says was trained, and the weights that came out.

    Raises `UserError` if either is missing, damaged, or does not belong to the other.
    """
    config, file = folder / "config.toml", folder / "weights.safetensors"
    for path in (config, file):
        if not path.is_file():
            raise UserError(
                f"{folder} is not the folder of a trained run: it has no {path.name}; "
                "make one with miiii-search train --out DIR"
            )
    configuration = read_configuration(config)
    try:
        with safe_open(file, framework="numpy") as opened:
            found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            _check_shapes(file, configuration, {n: (s.get_dtype(), *s.get_shape()) for n, s in found.items()})
            return configuration, {name: opened.get_tensor(name) for name in found}
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {file}: {error}; train the run again with miiii-search train {config}") from None


def _check_shapes(file: Path, configuration: Configuration, found: Mapping[str, tuple[Any, ...]]) -> None:
    expected = expected_shapes(configuration.experiment, configuration.hyperparameters)
    for name in sorted(expected.keys() | found.keys()):
        wanted, present = ("F32", *expected[name]) if name in expected else None, found.get(name)
        if wanted != present:
            raise UserError(
                f"{file}: `{name}` must be {_describe(wanted)} for the run in config.toml, but is "
                f"{_describe(present)}; keep the files of one run together"
            )


def _describe(array: tuple[Any, ...] | None) -> str:
    return "absent" if array is None else f"{array[0]} {list(array[1:])}"


def expected_shapes(experiment: Experiment, hyperparameters: Hyperparameters) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of the network that this run trains, by our names."""
    d, heads = hyperparameters.d_model, hyperparameters.n_heads
    return {
        "token_embedding": (experiment.p + 1, d),
        "position_embedding": (3, d),
        "query": (d, heads, d // heads),
        "key": (d, heads, d // heads),
        "value": (d, heads, d // heads),
        "attention_output": (heads, d // heads, d),
        "feed_forward_in": (d, 4 * d),
        "feed_forward_out": (4 * d, d),
        "unembedding": (d, sum(experiment.moduli)),
    }
