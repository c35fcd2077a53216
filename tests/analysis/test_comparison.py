"""The table of several runs: each value against what was planted, or against a direct computation."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import scipy.stats

from miiii_search.analysis.comparison import NOT_REACHED, ComparisonCell, ComparisonTable, compare_runs
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.milestones import find_milestones
from miiii_search.analysis.neurons import analyze_neurons
from miiii_search.analysis.quantities import QUANTITIES
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.metrics import Metrics
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.tasks import labels, make_splits
from tests.analysis.planted import (
    make_ablations,
    make_activity,
    make_findings,
    make_network,
    make_record,
    without_weights,
)

NANDA = Experiment(p=23, task="nanda")
MIIII = Experiment(p=23)
MASKED = Experiment(p=23, task="masked")


def cells(comparison: ComparisonTable, key: str) -> tuple[ComparisonCell, ...]:
    [row] = [row for row in comparison.rows if row.key == key]
    return row.cells


def value(findings: Findings, key: str) -> tuple[float, ...]:
    [cell] = cells(compare_runs([findings]), key)
    return cell.values


def text(findings: Findings, key: str) -> str:
    [cell] = cells(compare_runs([findings]), key)
    return cell.text


def test_what_was_planted_in_the_embeddings() -> None:
    """Amplitudes 4, 2, 1: each gives two singular values whose squares are as 16, 4 and 1."""
    network = make_network(NANDA, d_model=32, amplitudes={2: 4, 5: 2, 7: 1})
    findings = Findings(TrainedRun("planted", NANDA, Hyperparameters()), network=network)
    first, second, _ = network.weights["position_embedding"]
    assert value(findings, "position_correlation") == pytest.approx([scipy.stats.pearsonr(first, second).statistic])
    assert value(findings, "singular_values_50") == (2,)
    assert value(findings, "singular_values_90") == (4,)
    assert value(findings, "embedding_frequencies") == (3,)
    assert value(findings, "embedding_participation") == pytest.approx([21**2 / (16**2 + 4**2 + 1)], rel=1e-3)
    assert value(findings, "embedding_top_five") == pytest.approx([100], abs=0.1)
    assert text(findings, "embedding_participation") == "1.6"


def test_opposite_positions() -> None:
    findings = make_findings(MIIII)
    assert findings.network is not None
    for factor, printed in ((-1, "−1.00"), (1, "1.00")):
        embeddings = replace(findings.network.embeddings, position_correlation=float(factor))
        assert (
            text(replace(findings, network=replace(findings.network, embeddings=embeddings)), "position_correlation")
            == printed
        )


def test_what_was_planted_in_the_neurons() -> None:
    """Three of eight neurons use one frequency for both digits; five use two, with half of their variance at each."""
    p, x = 23, 2 * np.pi * np.arange(23) / 23
    same = np.cos(3 * x)[:, None] + np.cos(3 * x)[None]
    mixed = np.cos(2 * x)[:, None] + np.sin(5 * x)[None]
    grids = np.stack([same] * 3 + [mixed] * 5).reshape(8, p * p)
    findings = make_findings(NANDA)
    assert findings.network is not None
    findings.network = replace(findings.network, neurons=analyze_neurons(grids, p))
    assert value(findings, "neurons_two_frequencies") == pytest.approx([100])
    assert value(findings, "neurons_one_frequency") == pytest.approx([50])


def test_active_frequencies_at_the_end_and_when_they_were_most() -> None:
    findings = make_findings(MIIII)
    assert value(findings, "active_at_end") == (1, 1)
    assert value(findings, "active_at_peak") == (3, 1)
    assert value(findings, "active_peak_epoch") == (512,)
    none = replace(findings, activity=make_activity(23, {256: (0, 0), 512: (0, 0)}))
    assert value(none, "active_at_end") == value(none, "active_at_peak") == (0, 0)
    assert text(none, "active_peak_epoch") == ""


def test_attention_against_a_loop_over_the_grid() -> None:
    findings = make_findings(MIIII, n_heads=2)
    assert findings.network is not None
    attention, means, deviations = findings.network.activations.attention, [], []
    for head in range(2):
        samples = [(a0 - a1) / (a0 + a1) for a0, a1 in zip(attention[head, 0], attention[head, 1], strict=True)]
        means.append(sum(samples) / len(samples))
        deviations.append((sum((s - means[-1]) ** 2 for s in samples) / len(samples)) ** 0.5)
    assert value(findings, "attention_preference_by_head") == pytest.approx(means)
    assert value(findings, "attention_variation_by_head") == pytest.approx(deviations)
    assert value(findings, "attention_preference") == pytest.approx([(abs(means[0]) + abs(means[1])) / 2])


def test_epochs() -> None:
    """The four tasks that `masked` leaves out of the loss do not count."""
    early, late = [16, 16, 16, 16], [32, 48, 64, 80]
    record = make_record(MASKED, early + late, [None] * 4 + [160, 320, 640, 480])
    findings = make_findings(MASKED)
    findings.milestones = find_milestones(MASKED, record)
    assert value(findings, "memorised") == (80,)
    assert value(findings, "first_generalised") == (160,)
    assert value(findings, "generalised") == (640,)
    assert value(findings, "tasks_generalised") == (4, 4)
    assert text(findings, "tasks_generalised") == "4 / 4"
    findings.milestones = find_milestones(MASKED, make_record(MASKED, early + late, [None] * 8))
    assert text(findings, "generalised") == text(findings, "first_generalised") == NOT_REACHED
    assert value(findings, "generalised") == ()
    assert text(findings, "tasks_generalised") == "0 / 4"


@pytest.mark.parametrize("experiment", [NANDA, MIIII, MASKED], ids=lambda e: e.task)
def test_accuracy_held_out_against_a_loop_over_the_samples(experiment: Experiment) -> None:
    findings, p = make_findings(experiment), experiment.p
    assert findings.network is not None
    logits, y = findings.network.activations.logits, labels(experiment)
    trained = {tuple(x) for x in make_splits(experiment).train.x.tolist()}
    right, starts = [], np.concatenate([[0], np.cumsum(experiment.task_moduli)])
    for task in np.flatnonzero(experiment.scored):
        hits = [
            logits[starts[task] : starts[task + 1], x0 * p + x1].argmax() == y[x0 + x1 * p, task]
            for x0 in range(p)
            for x1 in range(p)
            if (x0, x1) not in trained
        ]
        right.append(np.mean(hits))
    assert value(findings, "held_out_accuracy") == pytest.approx([100 * np.mean(right)])


def test_accuracy_held_out_by_the_metrics_alone() -> None:
    """Validation and test are weighted by their numbers of samples."""
    per_task = (0.5,) * 8
    metrics = Metrics(
        epochs_trained=1024,
        validation_accuracy_mean=0.5,
        moduli=MIIII.task_moduli,
        train_accuracy=per_task,
        train_loss=per_task,
        validation_accuracy=(1.0,) * 8,
        validation_loss=per_task,
        test_accuracy=(0.0,) * 8,
        test_loss=per_task,
        weights_sha256="",
    )
    findings = Findings(TrainedRun("metrics", MIIII, Hyperparameters(), metrics=metrics))
    share = MIIII.n_validation / (23**2 - MIIII.n_train)
    assert value(findings, "held_out_accuracy") == pytest.approx([100 * share])


def test_frequencies_needed_and_gone() -> None:
    findings = make_findings(MASKED)
    assert value(findings, "frequencies_needed") == (1,)
    assert value(findings, "frequencies_gone") == (1,)
    findings.ablations = [make_ablations(MASKED, 1024, {1: 0.5, 4: 0.021, 5: 0.019})]
    assert value(findings, "frequencies_needed") == (2,)
    assert text(findings, "frequencies_gone") == ""  # unknown without snapshots


def test_missing_parts_leave_their_cells_empty() -> None:
    whole = make_findings(MIIII, "whole")
    nothing = Findings(TrainedRun("nothing", NANDA, Hyperparameters()))
    comparison = compare_runs([whole, without_weights(whole), nothing])
    of_record = {row.key for row in comparison.rows if row.cells[1] != ComparisonCell()}
    assert of_record == {
        "active_at_end",
        "active_at_peak",
        "active_peak_epoch",
        "memorised",
        "first_generalised",
        "generalised",
        "tasks_generalised",
    }
    for row in comparison.rows:
        assert row.cells[0].text
        assert row.cells[2] == ComparisonCell()


def test_29_tasks_beside_one() -> None:
    comparison = compare_runs([make_findings(Experiment(), "big", n_heads=8), make_findings(NANDA, "small")])
    assert all(cell.text for row in comparison.rows if row.key != "harmonic_offset" for cell in row.cells)
    assert len(cells(comparison, "attention_preference_by_head")[0].values) == 8
    assert cells(comparison, "tasks_generalised")[0].text == "1 / 29"


def test_the_table_as_text() -> None:
    comparison = compare_runs([make_findings(NANDA, "nanda-1"), make_findings(MIIII, "a | b")])
    assert comparison.header == ["", "unit", "nanda-1", "a | b (miiii)", "in the paper", "see"]
    assert len(comparison.lines()) == len(QUANTITIES)
    assert all(len(line) == len(comparison.header) for line in comparison.lines())
    first = comparison.lines()[0]
    assert first[-2:] == ["nanda 0.95, miiii −0.64", "Fig. 8"]
    header, rule, *rows = comparison.markdown().splitlines()
    assert len(rows) == len(QUANTITIES)
    columns = {line.replace(r"\|", "").count("|") for line in (header, rule, *rows)}
    assert columns == {len(comparison.header) + 1}
    assert r"a \| b" in header


def test_it_fits_into_a_file() -> None:
    comparison = compare_runs([make_findings(NANDA), Findings(TrainedRun("nothing", NANDA, Hyperparameters()))])
    read = json.loads(json.dumps(asdict(comparison), allow_nan=False))
    assert [row["cells"][0]["values"] for row in read["rows"]] == [list(row.cells[0].values) for row in comparison.rows]


def test_keys_are_unique() -> None:
    keys = [quantity.key for quantity in QUANTITIES]
    assert len(set(keys)) == len(keys)
