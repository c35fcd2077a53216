"""The complete analysis of one run, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from miiii_search.analysis.activity import FrequencyActivity, analyze_activity
from miiii_search.analysis.circuits import ABLATION_SAMPLES, Ablations, ablate
from miiii_search.analysis.embeddings import Embeddings, analyze_embeddings
from miiii_search.analysis.file_checks import InvalidRunError
from miiii_search.analysis.milestones import Milestones, find_milestones
from miiii_search.analysis.network import Activations, Weights, forward, grid
from miiii_search.analysis.neurons import Neurons, analyze_neurons
from miiii_search.analysis.progress_measures import ProgressMeasures, compute_progress_measures, key_frequencies
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.metrics import hash_weights

SNAPSHOT_SAMPLES = 1000
"""Number of samples for the ablations at a snapshot. There are up to ten snapshots, and only the trend matters."""


@dataclass
class NetworkFindings:
    """Findings from the final weights."""

    weights: Weights
    activations: Activations
    """Over the whole grid, in the order of `network.grid`."""
    embeddings: Embeddings
    neurons: Neurons


@dataclass
class Findings:
    """Findings about one run. A field is None or empty if the data for it is missing."""

    run: TrainedRun
    milestones: Milestones | None = None
    activity: FrequencyActivity | None = None
    network: NetworkFindings | None = None
    ablations: Sequence[Ablations] = ()
    """Ascending by epoch; the last one is of the final weights."""
    key_frequencies: Sequence[int] = ()
    """Only for the task `nanda`."""
    progress: Sequence[ProgressMeasures] = ()
    """Only for the task `nanda`, ascending by epoch."""
    unusable_snapshots: Sequence[str] = ()
    """One message per snapshot that could not be used."""

    @property
    def missing(self) -> list[str]:
        """Messages that say which findings are missing, and why."""
        run, lines = self.run, list[str]()
        if run.record is None:
            lines.append("no record of training: no learning curves, no order of tasks, no gradient norms")
        if self.activity is None:
            lines.append("no spectra (recorded from epoch 256 on): no frequencies through training")
        if run.weights is None:
            lines.append("no weights: no embeddings, neurons, attention, circuits")
        elif not run.snapshots:
            lines.append("no snapshots of the weights: circuits only at the end, not through training")
        return [*lines, *self.unusable_snapshots]


def analyze(run: TrainedRun, on_step: Callable[[str], None] = lambda step: None) -> Findings:
    """Compute everything that the data of a run allows.

    Args:
        run: The run.
        on_step: Called with a description of each step that takes long, before it begins.
    """
    findings = Findings(run)
    if run.record is not None and len(run.record):
        findings.milestones = find_milestones(run.experiment, run.record)
    findings.activity = analyze_activity(run.spectra)
    if run.weights is None:
        return findings
    on_step("embeddings and neurons")
    p = run.experiment.p
    activations = forward(run.weights, grid(p))
    findings.network = NetworkFindings(
        run.weights, activations, analyze_embeddings(run.weights), analyze_neurons(activations.neurons, p)
    )
    _analyze_through_training(findings, on_step)
    return findings


def _analyze_through_training(findings: Findings, on_step: Callable[[str], None]) -> None:
    """Compute ablations and progress measures at the run's snapshots and at its end."""
    run, task = findings.run, findings.run.experiment.task
    assert run.weights is not None
    earlier, unusable_snapshots = _snapshots_before_the_end(run)
    ablations, progress = list[Ablations](), list[ProgressMeasures]()
    findings.key_frequencies = key_frequencies(run.weights) if task == "nanda" else ()
    for epoch in [*earlier, None]:
        at = run.last_epoch if epoch is None else epoch
        on_step(f"circuits at epoch {at:,}")
        try:
            weights = run.weights if epoch is None else run.read_snapshot(epoch)
        except InvalidRunError as error:
            unusable_snapshots.append(f"the snapshot at epoch {at:,} cannot be used: {error}")
            continue
        ablations.append(ablate(run.experiment, weights, at, ABLATION_SAMPLES if epoch is None else SNAPSHOT_SAMPLES))
        if findings.key_frequencies:
            progress.append(compute_progress_measures(run.experiment, weights, findings.key_frequencies, at))
    findings.ablations, findings.progress, findings.unusable_snapshots = ablations, progress, unusable_snapshots


def _snapshots_before_the_end(run: TrainedRun) -> tuple[list[int], list[str]]:
    """Return the epochs of the snapshots before the end of the run, and messages.

    If the snapshots belong to another run there are no epochs and one message.
    """
    last, epochs = run.last_epoch, list(run.snapshots)
    if epochs and epochs[-1] > last:
        return [], [f"the snapshots go up to epoch {epochs[-1]:,}, but the run up to {last:,}: they are of another run"]
    if last in run.snapshots:
        with suppress(InvalidRunError):  # an unreadable snapshot does not make the others suspect
            at_end = run.read_snapshot(last)
            if run.weights is not None and hash_weights(at_end) != hash_weights(run.weights):
                at = f"epoch {last:,}, the end of the run,"
                return [], [f"the snapshot at {at} has other weights: the snapshots are of another run"]
    return [epoch for epoch in epochs if epoch < last], []
