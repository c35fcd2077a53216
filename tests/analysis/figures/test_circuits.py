"""Figures of circuits show what was found."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miiii_search.analysis.circuits import Ablations
from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.circuits import circuits_by_task, circuits_through_training
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.spec import Experiment, Hyperparameters
from tests.analysis.artists import bars, dots, image
from tests.analysis.planted import make_ablations

NANDA = Experiment(p=23, task="nanda")
MASKED = Experiment(p=23, task="masked")


def make_findings(experiment: Experiment, *ablations: Ablations) -> Findings:
    return Findings(TrainedRun("planted", experiment, Hyperparameters()), ablations=ablations)


def through_training(experiment: Experiment) -> Findings:
    """Frequency 2 and head 3 are needed throughout; 7 and head 0 at epoch 512 only."""
    return make_findings(
        experiment,
        make_ablations(experiment, 256, {2: 0.1}, [0, 0, 0, 0.2]),
        make_ablations(experiment, 512, {2: 0.3, 7: 0.2}, [0.1, 0, 0, 0.2]),
        make_ablations(experiment, 1024, {2: 0.4}, [0, 0, 0, 0.2]),
    )


def drawn(figure: Figure | None) -> list[Axes]:
    assert figure is not None
    assert style.figure_bytes(figure, "png") and style.figure_bytes(figure, "svg")
    return figure.axes


def test_a_matrix_of_parts_by_tasks() -> None:
    experiment = Experiment(p=23)
    random = np.random.default_rng(0)
    ablations = replace(
        make_ablations(experiment, 1024, {}),
        frequencies=random.normal(size=(11, 8)),
        groups=random.normal(size=(11, 8)),
        heads=random.normal(size=(4, 8)),
        accuracy=random.random(8),
    )
    with style.figure_style():
        by_frequency, by_group, by_head, whole, _ = drawn(circuits_by_task(make_findings(experiment, ablations)))
    for axes, values in zip((by_frequency, by_head), (ablations.frequencies, ablations.heads), strict=True):
        np.testing.assert_array_equal(image(axes), values)
    # There are no neurons with frequency 1, which differs from a change of 0.
    np.testing.assert_array_equal(image(by_group), np.concatenate([np.full((1, 8), np.nan), ablations.groups[1:]]))
    low, high = by_group.images[0].get_clim()
    assert low is not None and high is not None and low == -high  # white is no change
    assert bars(whole) == pytest.approx(100 * ablations.accuracy)
    assert [label.get_text() for label in by_head.get_xticklabels()] == [str(q) for q in experiment.task_moduli]
    assert [label.get_text() for label in by_head.get_yticklabels()] == ["0", "1", "2", "3"]
    assert by_frequency.get_yticklabels()[0].get_text() == "1"


def test_a_single_task_is_drawn_as_bars() -> None:
    findings = through_training(NANDA)
    with style.figure_style():
        panels = drawn(circuits_by_task(findings))
    last = findings.ablations[-1]
    for axes, values in zip(panels, (last.frequencies, last.groups, last.heads), strict=True):
        assert bars(axes) == pytest.approx(values[:, 0])


LARGE = [pytest.param(p, marks=pytest.mark.slow) for p in (113, 199)]


@pytest.mark.parametrize("p", [5, *LARGE])
@pytest.mark.parametrize("task", ["nanda", "miiii"])
def test_small_and_large(p: int, task: str) -> None:
    experiment = Experiment.model_validate({"p": p, "task": task})
    findings = make_findings(
        experiment, *(make_ablations(experiment, 256 * 2**look, {1: 0.2}, [0.1] * 8) for look in range(10))
    )
    with style.figure_style():
        figures = [circuits_by_task(findings), circuits_through_training(findings)]
    for figure in figures:
        drawn(figure)
        assert figure is not None and figure.get_figwidth() <= style.PAGE_WIDTH and figure.get_figheight() < 9
        assert len(style.figure_bytes(figure, "svg")) < 500_000


def test_the_luck_of_samples_does_not_look_like_an_effect() -> None:
    experiment = Experiment(p=23)
    with style.figure_style():
        axes = drawn(circuits_by_task(make_findings(experiment, make_ablations(experiment, 1, {3: 0.001}))))
    assert axes[0].images[0].get_clim() == pytest.approx((-0.02, 0.02))


def test_circuits_that_are_gone_at_the_end_are_marked() -> None:
    with style.figure_style():
        above, below, _ = drawn(circuits_through_training(through_training(MASKED)))
    expected = np.zeros((11, 3))
    expected[1], expected[6] = [-0.1, -0.3, -0.4], [0, -0.2, 0]
    np.testing.assert_allclose(image(above), expected, atol=1e-12)
    np.testing.assert_allclose(image(below)[[0, 3]], [[0, -0.1, 0], [-0.2, -0.2, -0.2]], atol=1e-12)
    np.testing.assert_array_equal(dots(above), [[1, 6]])
    np.testing.assert_array_equal(dots(below), [[1, 0]])
    assert [label.get_text() for label in below.get_xticklabels()] == ["256", "512", "1,024"]


def test_nothing_gone_nothing_marked() -> None:
    findings = through_training(MASKED)
    findings.ablations = [findings.ablations[0], findings.ablations[2]]
    with style.figure_style():
        figure = circuits_through_training(findings)
    above, below, _ = drawn(figure)
    assert figure is not None and not figure.legends
    assert not len(dots(above)) and not len(dots(below))


def test_without_weights_or_snapshots() -> None:
    assert circuits_by_task(make_findings(NANDA)) is None
    assert circuits_through_training(make_findings(NANDA)) is None
    alone = make_findings(NANDA, make_ablations(NANDA, 1024, {1: 0.2}))
    assert circuits_through_training(alone) is None
    with style.figure_style():
        assert circuits_by_task(alone) is not None
