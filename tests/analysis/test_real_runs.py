"""Networks trained here: one that grokked has periodic weights, one that only memorised has not."""

from collections.abc import Callable

import numpy as np
import pytest

from miiii_search.analysis.findings import Findings, NetworkFindings, analyze
from miiii_search.analysis.network import forward, grid
from miiii_search.analysis.neurons import analyze_neurons
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.record import WeightSnapshot, find_snapshots, write_snapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.run import train
from tests.analysis.networks import random_weights

pytestmark = pytest.mark.slow

P, EPOCHS = 31, 2048
HYPERPARAMETERS = Hyperparameters(
    d_model=64, n_heads=4, learning_rate=3e-3, weight_decay=2.0, dropout=0.1, grokfast_lambda=0.5
)
Analyzed = Callable[[str], Findings]


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> Analyzed:
    """Return the findings of a run of a task, which is trained at the first call."""
    found: dict[str, Findings] = {}

    def of(task: str) -> Findings:
        if task not in found:
            # A run that cannot generalise does not end by itself; nanda takes up to 768 epochs.
            epochs = EPOCHS if task == "nanda" else 768
            experiment = Experiment(p=P, task=task, train_fraction=0.6, epochs=epochs, seed=2)
            folder, looks = tmp_path_factory.mktemp(task), list[WeightSnapshot]()
            result = train(experiment, HYPERPARAMETERS, on_snapshot=looks.append)
            for look in looks:
                write_snapshot(folder, look)
            spectra = {look.epoch: look.spectrum for look in looks}
            found[task] = analyze(
                TrainedRun(
                    *(task, experiment, HYPERPARAMETERS, result.metrics, result.record, spectra),
                    weights=result.weights,
                    snapshots=find_snapshots(folder),
                )
            )
        return found[task]

    return of


def network(findings: Findings) -> NetworkFindings:
    assert findings.network is not None
    return findings.network


def test_nanda_computes_with_a_few_frequencies(analyzed: Analyzed) -> None:
    """The network uses a few of 15 frequencies.

    Found for seeds 0, 1 and 2, solved at 480, 400 and 720 epochs: four frequencies hold 0.86, 0.96 and 0.95 of the
    embedding's energy. 5, 5 and 6 are active; the participation ratio is 5.3, 2.1 and 4.3. One frequency explains
    0.78, 0.87 and 0.88 of the median neuron's variance. The positions correlate with 0.79, 0.88 and 0.91.
    """
    findings = analyzed("nanda")
    of = network(findings)
    assert findings.run.metrics is not None and findings.run.metrics.test_accuracy[0] > 0.95
    frequencies = of.embeddings.frequencies
    assert frequencies.energy_share(4) > 0.75
    assert frequencies.participation < 7
    assert 1 <= len(frequencies.active) <= 10
    assert of.embeddings.position_correlation > 0.5
    assert of.neurons.median(of.neurons.single_explained) > 0.65
    assert 1 <= len(findings.key_frequencies) <= 7
    assert set(findings.key_frequencies[:1]) <= set(frequencies.active.tolist())
    assert of.embeddings.singular.rank_by_share[0.9] < 20


def test_nanda_needs_its_key_frequencies_alone(analyzed: Analyzed) -> None:
    """Only the key frequencies matter.

    Found for seeds 0, 1 and 2: accuracy falls by 0.48, 0.94 and 0.67 without the most needed key frequency. It falls
    by less than 0.01 without any frequency that is not active.
    """
    findings = analyzed("nanda")
    ablations, active = findings.ablations[-1], network(findings).embeddings.frequencies.active
    lost = -ablations.frequencies[:, 0]
    assert lost.max() > 0.25
    assert 1 + lost.argmax() in findings.key_frequencies
    assert np.delete(lost, active - 1).max() < 0.1
    # Nearly all neurons have a key frequency as their dominant one.
    assert ablations.group_sizes[active - 1].sum() > 0.7 * ablations.group_sizes.sum()


def test_nanda_generalises_by_waves_and_memorises_by_the_rest(analyzed: Analyzed) -> None:
    """The restricted loss is that of the general solution.

    It is far below the held-out loss while that is high. At the end both are low. Without the key frequencies, the
    training samples are lost too.
    """
    findings = analyzed("nanda")
    early, end = findings.progress[0], findings.progress[-1]
    assert (early.epoch, end.epoch) == (256, findings.run.last_epoch)
    assert early.held_out > 2 * early.restricted
    assert end.held_out < 0.2 and end.restricted < 0.2
    assert end.excluded > max(1.0, early.excluded)
    assert [a.epoch for a in findings.ablations] == [p.epoch for p in findings.progress]
    assert findings.missing == []


def test_basis_has_no_frequencies(analyzed: Analyzed) -> None:
    """A shuffled task is memorised without frequencies.

    Found for seeds 0, 1 and 2: held-out accuracy is 0.15, as by chance. No frequency is active, and the participation
    ratio is 14.6 of 15. Two frequencies explain 0.15 of the median neuron's variance; in a random network, 0.19.
    Without any one frequency, accuracy changes by at most 0.012.
    """
    findings = analyzed("basis")
    of = network(findings)
    assert findings.run.metrics is not None and np.mean(findings.run.metrics.train_accuracy) > 0.9
    frequencies = of.embeddings.frequencies
    assert len(frequencies.active) <= 1
    assert frequencies.energy_share(4) < 0.5
    assert frequencies.participation > 12
    random = analyze_neurons(forward(random_weights(P, 64, 4, P), grid(P)).neurons, P)
    assert of.neurons.median(of.neurons.explained) < 1.5 * random.median(random.explained) < 0.3
    assert np.abs(findings.ablations[-1].frequencies.mean(axis=1)).max() < 0.1
    assert len(findings.key_frequencies) == len(findings.progress) == 0
