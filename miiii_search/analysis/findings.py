"""All that is computed of one run, before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from miiii_search.analysis.activity import Activity, analyze_activity
from miiii_search.analysis.circuits import Ablations, ablate
from miiii_search.analysis.embeddings import Embeddings, analyze_embeddings
from miiii_search.analysis.milestones import Milestones, find_milestones
from miiii_search.analysis.network import Activations, Weights, forward, grid
from miiii_search.analysis.neurons import Neurons, analyze_neurons
from miiii_search.analysis.progress import ProgressMeasures, key_frequencies, measure_progress
from miiii_search.analysis.run import TrainedRun

SNAPSHOT_SAMPLES = 1000
"""For ablations at a snapshot: there are up to ten of them, and what is wanted is their course."""


@dataclass
class OfWeights:
    """What the final weights show."""

    weights: Weights
    activations: Activations
    """Over the whole grid, x0 the slower."""
    embeddings: Embeddings
    neurons: Neurons


@dataclass
class Findings:
    """Of one run; None or empty where what it needs is missing."""

    run: TrainedRun
    milestones: Milestones | None = None
    activity: Activity | None = None
    network: OfWeights | None = None
    ablations: Sequence[Ablations] = ()
    """Ascending by epoch; the last is of the final weights."""
    key_frequencies: Sequence[int] = ()
    """Of the task `nanda`."""
    progress: Sequence[ProgressMeasures] = ()
    """Of the task `nanda`, ascending by epoch."""

    @property
    def missing(self) -> list[str]:
        """What could not be computed, and why, a line each."""
        run, lines = self.run, list[str]()
        if run.record is None:
            lines.append("no record of training: no learning curves, no order of tasks, no gradient norms")
        if self.activity is None:
            lines.append("no spectra (recorded from epoch 256 on): no frequencies through training")
        if run.weights is None:
            lines.append("no weights: no embeddings, neurons, attention, circuits")
        elif not run.snapshots:
            lines.append("no snapshots of the weights: circuits at the end alone, not through training")
        return lines


def analyze(run: TrainedRun, on_step: Callable[[str], None] = lambda what: None) -> Findings:
    """Computes all that the run allows. `on_step` is told what comes next."""
    findings = Findings(run)
    if run.record is not None and len(run.record):
        findings.milestones = find_milestones(run.experiment, run.record)
    findings.activity = analyze_activity(run.spectra)
    if run.weights is None:
        return findings
    on_step("embeddings and neurons")
    p = run.experiment.p
    activations = forward(run.weights, grid(p))
    findings.network = OfWeights(
        run.weights, activations, analyze_embeddings(run.weights), analyze_neurons(activations.neurons, p)
    )
    earlier = [epoch for epoch in run.snapshots if epoch < run.last_epoch]
    ablations, progress = list[Ablations](), list[ProgressMeasures]()
    if run.experiment.task == "nanda":
        findings.key_frequencies = key_frequencies(run.weights)
    for epoch in [*earlier, None]:
        on_step(f"circuits at epoch {epoch or run.last_epoch:,}")
        weights = run.weights if epoch is None else run.read_snapshot(epoch)
        more = {} if epoch is None else {"samples": SNAPSHOT_SAMPLES}
        at = run.last_epoch if epoch is None else epoch
        ablations.append(ablate(run.experiment, weights, at, **more))
        if findings.key_frequencies:
            progress.append(measure_progress(run.experiment, weights, findings.key_frequencies, at))
    findings.ablations, findings.progress = ablations, progress
    return findings
