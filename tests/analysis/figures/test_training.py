"""The figures of training, against the record."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from miiii_search.analysis.figures.curves import accuracy, loss
from miiii_search.analysis.figures.heatmaps import MAX_COLUMNS, merge_into_columns
from miiii_search.analysis.figures.training import MATRIX_LABELS, gradient_norms, task_order
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.milestones import find_milestones
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.training.model import Transformer
from tests.analysis.figures.synthetic import make_findings, make_record

MANY = Experiment(p=13)  # q = 2, 3, 5, 7, 11
ONE = Experiment(p=13, task="nanda")


def with_record(findings: Findings, **changed: NDArray[Any]) -> Findings:
    assert findings.run.record is not None
    record = replace(findings.run.record, **changed)
    return replace(
        findings, run=replace(findings.run, record=record), milestones=find_milestones(findings.run.experiment, record)
    )


def record_of(findings: Findings) -> Record:
    assert findings.run.record is not None
    return findings.run.record


def mesh(axes: Axes) -> QuadMesh:
    (found,) = [artist for artist in axes.collections if isinstance(artist, QuadMesh)]
    return found


def values(axes: Axes) -> Any:
    return np.ma.asarray(mesh(axes).get_array())


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def row_names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_accuracy_of_many_tasks_is_a_heat_map() -> None:
    findings = make_findings(MANY, evaluations=30)
    record = record_of(findings)
    train, validation, bar = drawn(accuracy(findings)).axes
    for axes, wanted in ((train, record.train_accuracy), (validation, record.validation_accuracy)):
        np.testing.assert_allclose(values(axes), wanted.T)
        assert axes.get_xscale() == "log"
        assert row_names(axes) == ["2", "3", "5", "7", "11"]
        assert axes.get_ylim() == (4.5, -0.5), "the smallest on top"
        assert mesh(axes).get_clim() == (0, 1)
    assert (train.get_title(), validation.get_title(), validation.get_xlabel()) == ("training", "validation", "epoch")
    assert bar.get_xlabel() == "accuracy"


def test_of_one_task_there_are_lines() -> None:
    findings = make_findings(ONE)
    record = record_of(findings)
    for draw, name, chance in ((accuracy, "accuracy", 1 / 13), (loss, "loss", np.log(13))):
        (axes,) = drawn(draw(findings)).axes
        lines = {str(line.get_label()): line for line in axes.lines}
        for split, label in (("train", "training"), ("validation", "validation")):
            assert np.array_equal(lines[label].get_xdata(), record.epoch)
            assert np.array_equal(lines[label].get_ydata(), getattr(record, f"{split}_{name}")[:, 0])
        np.testing.assert_allclose(np.asarray(lines["chance"].get_ydata(), float), chance)
        assert axes.get_xscale() == "log"
        assert axes.get_yscale() == ("log" if draw is loss else "linear")


def test_loss_is_logarithmic_and_has_a_floor() -> None:
    findings = make_findings(MANY, evaluations=30)
    record = record_of(findings)
    train, validation, bar = drawn(loss(findings)).axes
    assert record.train_loss.min() < 1e-4 < record.validation_loss[:, -1].min()
    for axes, wanted in ((train, record.train_loss), (validation, record.validation_loss)):
        np.testing.assert_allclose(values(axes), np.maximum(wanted, 1e-4).T, rtol=1e-6)
        assert isinstance(mesh(axes).norm, LogNorm)
    assert mesh(train).get_clim() == mesh(validation).get_clim()
    assert mesh(train).get_clim()[0] == pytest.approx(1e-4)
    assert bar.get_xlabel() == "cross-entropy (nats)"


def test_what_is_not_finite_is_left_out() -> None:
    findings = make_findings(MANY, evaluations=30)
    losses = record_of(findings).validation_loss.copy()
    losses[20:25, 1], losses[25:, 1] = np.inf, np.nan
    _, validation, _ = drawn(loss(with_record(findings, validation_loss=losses))).axes
    mask = np.ma.getmaskarray(values(validation))
    assert mask[1, 20:].all() and mask.sum() == 10
    every = np.full_like(losses, np.nan)
    assert loss(with_record(findings, validation_loss=every, train_loss=every)) is None


def test_tasks_outside_of_the_loss_are_grey() -> None:
    findings = make_findings(Experiment(p=13, task="masked"), evaluations=30)
    train, *_ = drawn(accuracy(findings)).axes
    assert [label.get_color() for label in train.get_yticklabels()] == ["0.55"] * 4 + ["black"]
    assert "grey" in train.get_ylabel()


@pytest.mark.parametrize("evaluations", [1, 2, 100, 4096])
def test_columns_hold_each_evaluation_once(evaluations: int) -> None:
    epochs = 16 * np.arange(1, evaluations + 1)
    starts, edges = merge_into_columns(epochs)
    assert len(edges) == len(starts) + 1 <= MAX_COLUMNS + 2
    assert (np.diff(edges) > 0).all()
    # Each evaluation lies within the edges of its own column.
    assert (
        np.searchsorted(edges, epochs) - 1 == np.searchsorted(starts, np.arange(evaluations), side="right") - 1
    ).all()
    if evaluations <= 100:
        assert len(starts) == evaluations, "few evaluations have a column each"


def test_evaluations_of_one_column_are_averaged() -> None:
    findings = make_findings(MANY, evaluations=4096)
    record = record_of(findings)
    noisy = np.random.default_rng(0).random(record.validation_accuracy.shape).astype(np.float32)
    _, validation, _ = drawn(accuracy(with_record(findings, validation_accuracy=noisy))).axes
    starts, _ = merge_into_columns(record.epoch)
    assert len(starts) < 1000
    wanted = [part.mean(axis=0) for part in np.split(noisy.astype(float), starts[1:])]
    np.testing.assert_allclose(values(validation), np.stack(wanted, axis=1))


def test_order_of_the_tasks() -> None:
    """Planted: 5 before 2 before 3; 7 only memorised, 11 not even that."""
    findings = make_findings(MANY, evaluations=50)
    train, validation = np.zeros((2, 50, 5), np.float32)
    for task, (memorised, generalised) in enumerate([(3, 20), (4, 30), (5, 10), (6, None), (None, None)]):
        if memorised is not None:
            train[memorised:, task] = 1
        if generalised is not None:
            validation[generalised:, task] = 1
    findings = with_record(findings, train_accuracy=train, validation_accuracy=validation)
    (axes,) = drawn(task_order(findings)).axes
    assert row_names(axes) == ["5", "2", "3", "7", "11"]
    assert axes.get_ylim() == (4.5, -0.5)
    epoch = record_of(findings).epoch
    points = {True: dict[float, float](), False: dict[float, float]()}  # by hollow or not: row → epoch
    lines = {}
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        if line.get_marker() == "o":
            points[line.get_markerfacecolor() == "white"][y[0]] = x[0]
        else:
            lines[y[0]] = (line.get_linestyle(), *x)
    assert points[True] == {0: epoch[5], 1: epoch[3], 2: epoch[4], 3: epoch[6]}
    assert points[False] == {0: epoch[10], 1: epoch[20], 2: epoch[30]}
    assert lines[0] == ("-", epoch[5], epoch[10])
    assert lines[3] == (":", epoch[6], epoch[-1])
    assert axes.get_xscale() == "log"


def test_no_order_of_tasks_that_learned_nothing() -> None:
    findings = make_findings(MANY)
    zeros = np.zeros_like(record_of(findings).train_accuracy)
    assert task_order(with_record(findings, train_accuracy=zeros, validation_accuracy=zeros)) is None


def test_gradient_norms_in_the_order_of_depth() -> None:
    model = Transformer(5, 8, 2, 10, nnx.Rngs(0))
    names = sorted(str(path[0]) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)))
    assert sorted(MATRIX_LABELS) == names, "the columns of a record are in this order"
    record = make_record(MANY, 30)
    marked = 1 + np.arange(9, dtype=np.float32) + np.zeros((30, 1), np.float32)  # column by column
    findings = with_record(make_findings(MANY, evaluations=30), gradient_norm=marked)
    axes, bar = drawn(gradient_norms(findings)).axes
    assert row_names(axes)[:3] == ["tokens", "positions", "query"]
    assert values(axes)[:, 0].tolist() == [1 + names.index(name) for name in MATRIX_LABELS]
    assert values(axes).shape == (9, len(record))
    assert isinstance(mesh(axes).norm, LogNorm)
    assert (bar.get_xlabel(), axes.get_xscale()) == ("L2 norm of the gradient", "log")
