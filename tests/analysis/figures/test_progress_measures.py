"""Figure of the progress measures."""

import numpy as np
import pytest

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.progress_measures import progress_measures
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.progress_measures import ProgressMeasures
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.spec import Experiment, Hyperparameters

MEASURES = [
    ProgressMeasures(256, 1e-3, 4.0, 3.0, 0.5),
    ProgressMeasures(512, 1e-5, 2.0, 0.3, 2.0),
    ProgressMeasures(1312, 1e-7, 1e-3, 1e-4, 6.0),
]


def make_findings(*measures: ProgressMeasures) -> Findings:
    run = TrainedRun("planted", Experiment(p=23, task="nanda"), Hyperparameters())
    return Findings(run, progress=measures)


def test_four_losses_over_the_epochs() -> None:
    with style.figure_style():
        figure = progress_measures(make_findings(*MEASURES))
    assert figure is not None and style.figure_bytes(figure, "png")
    [axes] = figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    for label, field in [("train", "train"), ("held out", "held_out"), ("restricted",) * 2, ("excluded",) * 2]:
        assert lines[label].get_xdata() == pytest.approx([256, 512, 1312])
        assert lines[label].get_ydata() == pytest.approx([getattr(measures, field) for measures in MEASURES])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


@pytest.mark.parametrize("loss", [0.0, np.inf, np.nan])
def test_a_loss_without_a_place_on_the_axis_leaves_a_gap(loss: float) -> None:
    with style.figure_style():
        figure = progress_measures(make_findings(MEASURES[0], ProgressMeasures(512, loss, loss, loss, loss)))
    assert figure is not None and style.figure_bytes(figure, "svg")
    assert all(np.isnan(np.asarray(line.get_ydata())[1]) for line in figure.axes[0].lines)


def test_another_task_or_no_snapshots() -> None:
    assert progress_measures(make_findings()) is None
    assert progress_measures(make_findings(MEASURES[0])) is None
