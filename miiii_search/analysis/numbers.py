"""Findings as plain data, the content of numbers.json."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.activity import SIGMAS, FrequencyActivity
from miiii_search.analysis.circuits import Ablations, harmonic_offsets, transient_frequencies
from miiii_search.analysis.file_checks import weight_shapes
from miiii_search.analysis.findings import Findings, NetworkFindings
from miiii_search.analysis.milestones import LEARNED_ACCURACY, Milestones

FORMAT_VERSION = 1

SIGNIFICANT_DIGITS = 6
"""Number of significant digits, more than any of the numbers is accurate to."""


def findings_to_json(findings: Findings) -> dict[str, Any]:
    """Return the findings of a run as a tree of names, numbers and lists.

    Tasks are named by their modulus, and frequencies start from 1. What could not be computed is left out.
    """
    run = findings.run
    tree: dict[str, Any] = {
        "kind": "miiii-search analysis",
        "format": FORMAT_VERSION,
        "run": run.name,
        "experiment": run.experiment.model_dump(mode="json", exclude_none=True),
        "hyperparameters": run.hyperparameters.model_dump(mode="json"),
        "epochs_trained": run.last_epoch,
        "missing": findings.missing,
    }
    if run.metrics is not None:
        tree["epochs_to_solve"] = run.metrics.epochs_to_solve
        tree["accuracy"] = {
            str(q): {"training": train, "validation": validation, "test": test}
            for q, train, validation, test in zip(
                run.metrics.moduli,
                run.metrics.train_accuracy,
                run.metrics.validation_accuracy,
                run.metrics.test_accuracy,
                strict=True,
            )
        }
    if findings.milestones is not None:
        tree["milestones"] = _milestones(findings.milestones)
    if run.record is not None and len(run.record):
        names = sorted(weight_shapes(run.experiment, run.hyperparameters))
        tree["gradient_norm_at_end"] = _by_name(run.record.gradient_norm[-1], names)
    if findings.network is not None:
        tree |= _of_weights(findings.network)
    if findings.activity is not None:
        tree["activity"] = _activity(findings.activity)
    if findings.ablations:
        moduli = [str(q) for q in run.experiment.task_moduli]
        tree["circuits"] = [_ablations(at, moduli) for at in findings.ablations]
        offsets = harmonic_offsets(findings.ablations[-1], run.experiment.task_moduli)
        tree["harmonic_offset"] = {str(q): _round(offset) for q, offset in offsets.items()}
        tree["transient_frequencies"] = {
            str(k): epoch for k, epoch in transient_frequencies(findings.ablations, run.experiment.scored).items()
        }
    if findings.progress:
        tree["key_frequencies"] = list(findings.key_frequencies)
        tree["progress_measures"] = [
            {name: _round(value) for name, value in vars(measures).items()} for measures in findings.progress
        ]
    return tree


def _milestones(milestones: Milestones) -> dict[str, Any]:
    return {
        "accuracy": LEARNED_ACCURACY,
        "memorised": {str(q): epoch for q, epoch in milestones.memorised.items()},
        "generalised": {str(q): epoch for q, epoch in milestones.generalised.items()},
        "order": milestones.order,
        "delay": {str(q): epochs for q, epochs in milestones.delay.items()},
    }


def _of_weights(found: NetworkFindings) -> dict[str, Any]:
    embeddings, neurons, frequencies = found.embeddings, found.neurons, found.embeddings.frequencies
    return {
        "embeddings": {
            "position_correlation": _round(embeddings.position_correlation),
            "singular_values": _rounded(embeddings.singular.values),
            "singular_values_to": {str(mark): count for mark, count in embeddings.singular.rank_by_share.items()},
            "frequency_energy": _rounded(frequencies.energies),
            "noise_threshold": _round(frequencies.threshold),
            "active_frequencies": frequencies.active.tolist(),
            "participation": _round(frequencies.participation),
        },
        "neurons": {
            "alive": int(neurons.alive.sum()),
            "explained_median": _round(neurons.median(neurons.explained)),
            "single_explained_median": _round(neurons.median(neurons.single_explained)),
            "variance": _rounded(neurons.variance),
            "frequency": neurons.frequency.tolist(),
            "explained": _rounded(neurons.explained),
            "single_frequency": neurons.single.tolist(),
            "single_explained": _rounded(neurons.single_explained),
        },
    }


def _activity(activity: FrequencyActivity) -> dict[str, Any]:
    """Return the paper's counts and both variants of the public code's counts, as `[x0, x1]` for each epoch."""
    return {
        "epochs": activity.epochs.tolist(),
        "sigmas": SIGMAS,
        "active": activity.counts().tolist(),
        "phases": activity.phases(),
        "active_above_one_sigma": activity.counts(1.0).tolist(),
        "active_smoothed_above_one_sigma": activity.smoothed().counts(1.0).tolist(),
        "activation": _rounded(activity.activation),
    }


def _ablations(at: Ablations, moduli: list[str]) -> dict[str, Any]:
    """Return changes of accuracy, with one row per part and one column per task."""
    return {
        "epoch": at.epoch,
        "accuracy": _by_name(at.accuracy, moduli),
        "without_frequency": _rounded(at.frequencies),
        "without_head": _rounded(at.heads),
        "without_neurons_of_frequency": _rounded(at.groups),
        "neurons_of_frequency": at.group_sizes.tolist(),
    }


def _by_name(values: NDArray[Any], names: list[str]) -> dict[str, Any]:
    return dict(zip(names, _rounded(values), strict=True))


def _rounded(values: NDArray[Any]) -> Any:
    """Return an array as nested lists of numbers that JSON can represent."""
    return np.vectorize(_round, otypes=[object])(values).tolist() if values.size else []


def _round(value: float) -> float | int | None:
    """Return a rounded number, or None if it is not finite, since JSON has neither infinity nor NaN."""
    if isinstance(value, int):
        return value
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if np.isfinite(value) else None
