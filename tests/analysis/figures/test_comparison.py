"""Figures of several runs show what was found and leave out what is missing."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.comparison_training import compare_accuracy, compare_activity
from miiii_search.analysis.figures.comparison_weights import (
    compare_attention,
    compare_embeddings,
    compare_neurons,
    compare_positions,
    compare_singular_values,
)
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.spec import Experiment, Hyperparameters
from tests.analysis.artists import bars, dots, image, mesh, points
from tests.analysis.planted import make_findings, make_network, without_weights

NANDA = Experiment(p=31, task="nanda")
MIIII = Experiment(p=23)
MASKED = Experiment(p=23, task="masked")

Draw = Callable[[Sequence[Findings]], Figure | None]
OF_WEIGHTS: list[Draw] = [
    compare_positions,
    compare_singular_values,
    compare_embeddings,
    compare_neurons,
    compare_attention,
]
OF_TRAINING: list[Draw] = [compare_activity, compare_accuracy]


def runs() -> list[Findings]:
    """Runs of different p, with different numbers of heads."""
    findings = [make_findings(NANDA, "nanda", n_heads=2), make_findings(MIIII, "miiii", n_heads=4)]
    findings[0].network = make_network(NANDA, d_model=32, n_heads=2, amplitudes={2: 4, 5: 3})
    return findings


def drawn(draw: Draw, findings: Sequence[Findings]) -> list[Axes]:
    with style.figure_style():
        figure = draw(findings)
    assert figure is not None
    for kind in ("png", "svg"):
        assert len(style.figure_bytes(figure, kind)) < 500_000
    assert figure.get_figwidth() <= style.PAGE_WIDTH
    return figure.axes


def test_positions() -> None:
    findings = runs()
    panels = drawn(compare_positions, findings)
    for axes, found in zip(panels, findings, strict=True):
        assert found.network is not None
        np.testing.assert_allclose(dots(axes), found.network.weights["position_embedding"][:2].T)
    assert panels[0].get_xlim() == panels[1].get_xlim() == panels[1].get_ylim()


def test_singular_values() -> None:
    findings = runs()
    [axes] = drawn(compare_singular_values, findings)
    assert findings[0].network is not None
    line, half, ninety = axes.lines[:3]
    values = np.linalg.svd(findings[0].network.weights["token_embedding"][:-1], compute_uv=False)
    assert points(line)[1] == pytest.approx(values / values[0])
    # Squares as 16, 16, 9, 9.
    assert (*points(half)[0], *points(ninety)[0]) == (2, 4)


def test_embeddings() -> None:
    nanda, _ = drawn(compare_embeddings, runs())
    heights = bars(nanda)
    assert len(heights) == 15
    assert (heights[1], heights[4]) == pytest.approx((64, 36), abs=0.1)
    assert nanda.get_title().endswith("2 of 15 active")


def test_neurons() -> None:
    findings = runs()
    left, right = drawn(compare_neurons, findings)
    assert findings[1].network is not None
    neurons = findings[1].network.neurons
    for axes, explained in ((left, neurons.explained), (right, neurons.single_explained)):
        x, y = points(axes.lines[1])
        assert axes.lines[1].get_drawstyle() == "steps-post"  # what y is from its x on
        alive = 100 * explained[neurons.alive]
        for threshold, share in zip(x[:-1], y[:-1], strict=True):  # just above a step
            assert share == pytest.approx(100 * np.mean(alive > threshold + 1e-9))


def test_attention() -> None:
    findings = runs()
    panels = drawn(compare_attention, findings)
    for row, found in zip((panels[:4], panels[4:8]), findings, strict=True):
        assert found.network is not None
        attention = found.network.activations.attention
        for head, axes in enumerate(row):
            assert axes.axison == (head < len(attention))
            if axes.axison:
                assert image(axes)[3, 5] == attention[head, 0, 3 * found.run.experiment.p + 5]  # x0 downwards


def test_activity() -> None:
    findings = runs()
    panels = drawn(compare_activity, findings)[:6]
    for column, found in enumerate(findings):
        assert found.activity is not None
        for digit in (0, 1):
            values, borders = mesh(panels[2 * digit + column])
            activation = found.activity.activation[:, digit].T
            np.testing.assert_allclose(values, activation * len(activation))
            assert np.all((borders[:-1] < found.activity.epochs) & (found.activity.epochs < borders[1:]))
    of_x0, of_x1 = panels[5].lines
    assert points(of_x0)[1].tolist() == [0, 3, 1]
    assert points(of_x1)[1].tolist() == [1, 1, 1]


def test_accuracy() -> None:
    findings = [*runs(), make_findings(MASKED, "masked")]
    nanda, miiii, masked, _ = drawn(compare_accuracy, findings)
    assert (len(nanda.lines), len(miiii.lines), len(masked.lines)) == (2, 10, 10)
    record = findings[2].run.record
    assert record is not None
    *tasks, train, validation = masked.lines
    for task, line in enumerate(tasks):
        np.testing.assert_array_equal(points(line)[1], record.validation_accuracy[:, task])
    assert [line.get_linestyle() for line in tasks] == ["--"] * 4 + ["-"] * 4
    np.testing.assert_allclose(points(train)[1], record.train_accuracy[:, 4:].mean(axis=1))
    np.testing.assert_allclose(points(validation)[1], record.validation_accuracy[:, 4:].mean(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("draw", OF_WEIGHTS)
def test_a_run_without_weights_is_left_out(draw: Draw) -> None:
    first, second = runs()
    with_both, with_one = drawn(draw, [first, second]), drawn(draw, [without_weights(first), second])
    assert sum(len(a.lines) + len(a.images) + len(a.collections) + len(a.patches) for a in with_one) < sum(
        len(a.lines) + len(a.images) + len(a.collections) + len(a.patches) for a in with_both
    )
    assert draw([without_weights(first)]) is None


@pytest.mark.parametrize("draw", OF_WEIGHTS + OF_TRAINING)
def test_nothing_to_draw(draw: Draw) -> None:
    assert draw([]) is None
    assert draw([Findings(TrainedRun("nothing", NANDA, Hyperparameters()))]) is None


def test_a_record_without_evaluations() -> None:
    found = make_findings(MIIII)
    assert found.run.record is not None
    empty = replace(found, run=replace(found.run, record=found.run.record.rows(slice(0, 0))))
    assert compare_accuracy([empty]) is None


@pytest.mark.parametrize("draw", OF_WEIGHTS + OF_TRAINING)
@pytest.mark.parametrize("n", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_one_run_and_many_with_long_names(draw: Draw, n: int) -> None:
    """More runs than there are colours, and more than fit in one row."""
    findings = make_findings(MIIII, "a study's long name, trial 123 of the repeated ones")
    drawn(draw, [findings] * n)


@pytest.mark.slow
@pytest.mark.parametrize("draw", OF_WEIGHTS + OF_TRAINING)
def test_the_smallest_and_a_large_prime(draw: Draw) -> None:
    smallest, large = Experiment(p=5), Experiment(p=113)
    drawn(draw, [make_findings(smallest, "5", d_model=8, n_heads=1), make_findings(large, "113", n_heads=8)])
