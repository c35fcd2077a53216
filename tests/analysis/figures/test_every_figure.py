"""Properties of all figures: drawn for any run, reproducible, readable in a column, small files."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miiii_search.analysis.figures import activity, attention, curves, data, embeddings, neurons, training
from miiii_search.analysis.figures.style import COLUMN_WIDTH, figure_bytes, figure_style
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.spec import Experiment, Hyperparameters
from tests.analysis.figures.synthetic import make_findings, make_record, with_weights

OF_DATA: dict[str, Callable[[Experiment], Figure]] = {
    "number_spirals": lambda experiment: data.number_spirals(experiment.p),
    "input_grid": lambda experiment: data.input_grid(experiment.p),
    "label_grids": data.label_grids,
    "dft_matrix": lambda experiment: data.dft_matrix(experiment.p),
}
OF_RECORD = [curves.accuracy, curves.loss, training.task_order, training.gradient_norms]
OF_SPECTRA = [activity.frequencies_through_training]
OF_WEIGHTS = [
    embeddings.positions,
    embeddings.singular_values,
    embeddings.singular_vectors,
    embeddings.fourier_embedding,
    embeddings.frequency_norms,
    neurons.neuron_grids,
    neurons.neuron_frequencies,
    attention.attention_grids,
]
OF_FINDINGS = {draw.__name__: draw for draw in [*OF_RECORD, *OF_SPECTRA, *OF_WEIGHTS]}

RUNS = {
    "nanda, p = 5": lambda: make_findings(Experiment(p=5, task="nanda"), evaluations=5, n_heads=1),
    "miiii, p = 5": lambda: make_findings(Experiment(p=5)),
    "masked, p = 13": lambda: make_findings(Experiment(p=13, task="masked"), n_heads=8),
    "miiii, p = 113": lambda: make_findings(Experiment(), evaluations=4096, d_model=64),
}
FAST = "miiii, p = 5"


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[pytest.mark.slow] * (n != FAST)) for n in RUNS])
def findings(request: pytest.FixtureRequest) -> Findings:
    return RUNS[request.param]()


def drawn(name: str, findings: Findings) -> Figure:
    with figure_style():
        figure = OF_DATA[name](findings.run.experiment) if name in OF_DATA else OF_FINDINGS[name](findings)
    assert figure is not None
    return figure


@pytest.mark.parametrize("name", [*OF_DATA, *OF_FINDINGS])
def test_a_figure_for_a_column(name: str, findings: Findings) -> None:
    figure = drawn(name, findings)
    assert figure.get_figwidth() <= COLUMN_WIDTH and figure.get_figheight() <= 9
    assert max(len(figure_bytes(figure, "svg")), len(figure_bytes(figure, "png"))) < 500_000
    assert_nothing_is_cut_off(figure)
    for axes in figure.axes:
        assert_numbers_do_not_touch(axes)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OF_DATA, *OF_FINDINGS])
def test_the_same_bytes_each_time(name: str) -> None:
    findings = RUNS["masked, p = 13"]()
    assert figure_bytes(drawn(name, findings), "png") == figure_bytes(drawn(name, findings), "png")


def assert_nothing_is_cut_off(figure: Figure) -> None:
    box = figure.get_tightbbox()
    slack = 0.03  # inches: the hairline of an axis, half a dot
    assert box.x0 > -slack and box.y0 > -slack, box
    assert box.x1 < figure.get_figwidth() + slack and box.y1 < figure.get_figheight() + slack, box


def assert_numbers_do_not_touch(axes: Axes) -> None:
    if not axes.axison or not axes.xaxis.get_visible():
        return
    low, high = sorted(axes.get_xlim())
    labels = [
        t for t in axes.get_xticklabels() if t.get_text() and t.get_visible() and low <= t.get_position()[0] <= high
    ]
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
    for left, right in pairwise(boxes):
        assert left.x1 < right.x0, [label.get_text() for label in labels]


def test_what_is_missing_is_not_drawn() -> None:
    bare = Findings(TrainedRun("bare", Experiment(p=13), Hyperparameters()))
    for draw in OF_FINDINGS.values():
        assert draw(bare) is None


@pytest.mark.parametrize("missing", ["record", "spectra", "weights"])
def test_the_rest_is_drawn(missing: str) -> None:
    whole = make_findings(Experiment(p=13))
    part, lost = {
        "record": (replace(whole, run=replace(whole.run, record=None), milestones=None), OF_RECORD),
        "spectra": (replace(whole, activity=None), OF_SPECTRA),
        "weights": (replace(whole, network=None), OF_WEIGHTS),
    }[missing]
    with figure_style():
        assert {name for name, draw in OF_FINDINGS.items() if draw(part) is None} == {draw.__name__ for draw in lost}


@pytest.mark.parametrize("evaluations", [0, 1])
def test_a_run_that_ended_early(evaluations: int) -> None:
    findings = make_findings(Experiment(p=13))
    record = make_record(findings.run.experiment, 60).rows(slice(0, evaluations))
    early = replace(findings, run=replace(findings.run, record=record), milestones=None)
    with figure_style():
        figures = [draw(early) for draw in OF_RECORD if draw is not training.task_order]
    assert all((figure is not None) == bool(evaluations) for figure in figures)
    for figure in figures:
        assert figure is None or figure_bytes(figure, "png")


def test_a_network_of_zeros() -> None:
    """Weights of zero, as weight decay alone would leave them, cause no division by zero."""
    whole = make_findings(Experiment(p=13))
    assert whole.run.weights is not None
    zeros = with_weights(whole, **{name: 0 * array for name, array in whole.run.weights.items()})
    with figure_style():
        figures = {draw.__name__: draw(zeros) for draw in OF_WEIGHTS}
    assert {name for name, figure in figures.items() if figure is None} == {"neuron_grids", "neuron_frequencies"}
    for figure in figures.values():
        assert figure is None or figure_bytes(figure, "png")
