"""Findings of networks that were never trained, of any size."""

from dataclasses import replace
from typing import Any

import numpy as np

from miiii_search.analysis.activity import analyze_activity
from miiii_search.analysis.embeddings import analyze_embeddings
from miiii_search.analysis.findings import Findings, NetworkFindings
from miiii_search.analysis.milestones import find_milestones
from miiii_search.analysis.network import Weights, forward, grid
from miiii_search.analysis.neurons import analyze_neurons
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters


def make_weights(experiment: Experiment, d_model: int = 16, n_heads: int = 4) -> dict[str, np.ndarray[Any, Any]]:
    """Return random weights with the names and shapes of `training.model.Transformer`."""
    rng = np.random.default_rng(1)
    d, d_head = d_model, d_model // n_heads
    shapes = {
        "token_embedding": (experiment.p + 1, d),
        "position_embedding": (3, d),
        "query": (d, n_heads, d_head),
        "key": (d, n_heads, d_head),
        "value": (d, n_heads, d_head),
        "attention_output": (n_heads, d_head, d),
        "feed_forward_in": (d, 4 * d),
        "feed_forward_out": (4 * d, d),
        "unembedding": (d, sum(experiment.task_moduli)),
    }
    return {name: (rng.normal(size=shape) * np.sqrt(2 / d)).astype(np.float32) for name, shape in shapes.items()}


def make_record(experiment: Experiment, evaluations: int = 60) -> Record:
    """Each task rises at its own pace, the smaller sooner; the largest has not generalised by the end."""
    tasks = len(experiment.task_moduli)
    epoch = np.arange(1, evaluations + 1, dtype=np.int32) * 16
    time = np.log(epoch)[:, None] / np.log(epoch[-1])
    train = np.clip(np.linspace(2.2, 1.5, tasks) * time, 0, 1).astype(np.float32)
    validation = np.clip(np.linspace(1.4, 0.9, tasks) * time, 0, 1).astype(np.float32)
    scale = np.log(experiment.task_moduli)
    rng = np.random.default_rng(2)
    norms = np.exp(rng.normal(size=(evaluations, 9)) - np.arange(9)).astype(np.float32)
    losses = [(scale * (1.00001 - accuracy)).astype(np.float32) for accuracy in (train, validation)]
    return Record(epoch, losses[0], train, losses[1], validation, norms, norms)


def of_weights(experiment: Experiment, weights: Weights) -> NetworkFindings:
    """Return what `analyze` finds in weights, without the ablations, which take long and are not drawn here."""
    activations = forward(weights, grid(experiment.p))
    neurons = analyze_neurons(activations.neurons, experiment.p)
    return NetworkFindings(weights, activations, analyze_embeddings(weights), neurons)


def make_findings(experiment: Experiment, evaluations: int = 60, d_model: int = 16, n_heads: int = 4) -> Findings:
    """Return complete findings: a record, spectra at four epochs, weights."""
    p, rng = experiment.p, np.random.default_rng(3)
    record = make_record(experiment, evaluations)
    spectra = {256 * 2**look: rng.random((p, p // 2 + 1)).astype(np.float32) ** 8 for look in range(4)}
    weights = make_weights(experiment, d_model, n_heads)
    run = TrainedRun("synthetic", experiment, Hyperparameters(), None, record, spectra, weights)
    return Findings(
        run, find_milestones(experiment, record), analyze_activity(spectra), of_weights(experiment, weights)
    )


def with_weights(findings: Findings, **changed: np.ndarray[Any, Any]) -> Findings:
    """Return the same run with other weights."""
    assert findings.run.weights is not None
    weights = {**findings.run.weights, **changed}
    run = replace(findings.run, weights=weights)
    return replace(findings, run=run, network=of_weights(run.experiment, weights))
