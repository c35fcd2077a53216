"""Findings of runs that were never trained, with planted values for the comparison to find."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.activity import FrequencyActivity
from miiii_search.analysis.circuits import Ablations
from miiii_search.analysis.embeddings import analyze_embeddings
from miiii_search.analysis.findings import Findings, NetworkFindings
from miiii_search.analysis.milestones import find_milestones
from miiii_search.analysis.network import forward, grid
from miiii_search.analysis.neurons import analyze_neurons
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters

Array = NDArray[Any]


def digits_table(p: int, d_model: int, amplitudes: Mapping[int, float], noise: float = 1e-3) -> Array:
    """Return a table over the digits with these frequencies, each in two directions of its own."""
    random, x = np.random.default_rng(0), 2 * np.pi * np.arange(p) / p
    directions = np.linalg.qr(random.normal(size=(d_model, d_model)))[0]
    table = noise * random.normal(size=(p, d_model))
    for at, (k, amplitude) in enumerate(amplitudes.items()):
        table += amplitude * np.outer(np.cos(k * x), directions[2 * at])
        table += amplitude * np.outer(np.sin(k * x), directions[2 * at + 1])
    return table


def make_network(
    experiment: Experiment, d_model: int = 16, n_heads: int = 4, amplitudes: Mapping[int, float] | None = None
) -> NetworkFindings:
    """Return the findings of random weights with these frequencies in their token embedding."""
    random, d_head = np.random.default_rng(1), d_model // n_heads
    shapes = {
        "token_embedding": (experiment.p + 1, d_model),
        "position_embedding": (3, d_model),
        "query": (d_model, n_heads, d_head),
        "key": (d_model, n_heads, d_head),
        "value": (d_model, n_heads, d_head),
        "attention_output": (n_heads, d_head, d_model),
        "feed_forward_in": (d_model, 4 * d_model),
        "feed_forward_out": (4 * d_model, d_model),
        "unembedding": (d_model, sum(experiment.task_moduli)),
    }
    weights = {name: random.normal(size=shape) * np.sqrt(2 / d_model) for name, shape in shapes.items()}
    if amplitudes is not None:
        weights["token_embedding"][:-1] = digits_table(experiment.p, d_model, amplitudes)
    activations = forward(weights, grid(experiment.p))
    neurons = analyze_neurons(activations.neurons, experiment.p)
    return NetworkFindings(weights, activations, analyze_embeddings(weights), neurons)


def make_record(experiment: Experiment, memorised: Sequence[int], generalised: Sequence[int | None]) -> Record:
    """Return a record of 64 evaluations, 16 epochs apart, in which a task's accuracies jump to 1 at its epochs."""
    epoch = 16 * np.arange(1, 65, dtype=np.int32)

    def jump(at: Sequence[int | None]) -> Array:
        return np.stack([epoch >= (epoch[-1] + 1 if e is None else e) for e in at], axis=1).astype(np.float32)

    train, validation = jump(memorised), jump(generalised)
    norms = np.ones((64, 9), np.float32)
    return Record(epoch, 1 - train, train, 1 - validation, validation, norms, norms)


def make_ablations(
    experiment: Experiment, epoch: int, lost: Mapping[int, float], lost_heads: Sequence[float] = (0, 0, 0, 0)
) -> Ablations:
    """Return ablations with these losses of accuracy, twice as large for the first task as for the last.

    Frequency 1 has no neurons.
    """
    m, tasks = (experiment.p - 1) // 2, len(experiment.task_moduli)
    weight = np.linspace(2, 1, tasks)
    frequencies = np.zeros((m, tasks))
    for k, much in lost.items():
        frequencies[k - 1] = -much * weight / weight[np.asarray(experiment.scored)].mean()
    heads = -np.outer(lost_heads, np.ones(tasks))
    sizes = np.arange(m)
    return Ablations(epoch, np.full(tasks, 0.75), frequencies, heads, frequencies / 2, sizes)


def make_activity(p: int, active: Mapping[int, tuple[int, int]]) -> FrequencyActivity:
    """Return an activity with this number of active frequencies of x0 and of x1, by epoch."""
    m = (p - 1) // 2
    activation = np.empty((len(active), 2, m))
    for look, counts in enumerate(active.values()):
        for digit, count in enumerate(counts):
            activation[look, digit] = (1 - 0.2 * count) / (m - count)
            activation[look, digit, :count] = 0.2
    return FrequencyActivity(np.asarray(list(active)), activation)


def make_findings(experiment: Experiment, name: str = "planted", d_model: int = 16, n_heads: int = 4) -> Findings:
    """Return findings in which nothing is missing."""
    tasks, m = len(experiment.task_moduli), (experiment.p - 1) // 2
    record = make_record(experiment, [128] * tasks, [256, *[None] * (tasks - 1)])
    ablations = [
        make_ablations(experiment, 256, {1: 0.1, 2: 0.3}, [0.2] * n_heads),
        make_ablations(experiment, 512, {1: 0.4, 2: 0.3}, [0.2] * n_heads),
        make_ablations(experiment, 1024, {2: 0.2}, [0.0, *[0.2] * (n_heads - 1)]),
    ]
    return Findings(
        TrainedRun(name, experiment, Hyperparameters(d_model=d_model, n_heads=n_heads), record=record),
        find_milestones(experiment, record),
        make_activity(experiment.p, {256: (0, 1), 512: (min(3, m - 1), 1), 1024: (1, 1)}),
        make_network(experiment, d_model, n_heads),
        ablations,
    )


def without_weights(findings: Findings) -> Findings:
    """Return the same run with only its record."""
    return replace(findings, network=None, ablations=(), key_frequencies=(), progress=())
