"""Summary and figures of a study: counts and marginals by hand, and the contents of the figures."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_configurations import curves_by_configuration
from miiii_search.analysis.figures.study_curves import curves_by_level
from miiii_search.analysis.figures.study_importance import importance_bars
from miiii_search.analysis.figures.study_marginals import solved_share_bars
from miiii_search.analysis.figures.study_seeds import epochs_to_solve_by_seed
from miiii_search.analysis.figures.study_solved import UNSOLVED_COLOUR, epochs_to_solve_heatmap
from miiii_search.analysis.figures.study_style import OUTCOME_COLOURS
from miiii_search.analysis.report.study_report import STUDY_FIGURES, study_figures, study_page
from miiii_search.analysis.study_summary import (
    SearchDimension,
    SeedSpread,
    StudySummary,
    TrialSummary,
    Value,
    summarize_trials,
)

EPOCHS = 1024
GRID: dict[str, Sequence[Value]] = {
    "grokfast_lambda": (0.0, 0.5, 2.0),
    "weight_decay": (1.0, 0.1),
    "dropout": (0.0, 0.1),
}
TABLE_1: dict[str, Sequence[Value]] = {
    "dropout": (0.0, 0.5, 0.2, 0.1),
    "grokfast_lambda": (0.0, 0.5, 2.0),
    "weight_decay": (0.0, 0.1, 0.5, 1.0),
    "d_model": (128, 256),
    "learning_rate": (3e-4, 1e-4),
    "n_heads": (4, 8),
}


def solved(number: int, point: Mapping[str, Value], epoch: int) -> TrialSummary:
    value = 2 - epoch / EPOCHS
    return TrialSummary(number, "solved", point, value, epoch, epoch + 8, {1: 0.1, 64: 0.3, epoch + 8: 1.0})


def unsolved(number: int, point: Mapping[str, Value], accuracy: float, outcome: str = "not solved") -> TrialSummary:
    epochs = EPOCHS if outcome == "not solved" else 512
    value = None if outcome == "failed" else accuracy
    return TrialSummary(number, outcome, point, value, None, epochs, {1: 0.1, 64: 0.2, epochs: accuracy}, reason="why")


def make_summary(rows: Sequence[TrialSummary], grid: Mapping[str, Sequence[Value]] = GRID) -> StudySummary:
    return summarize_trials(
        "study", EPOCHS, [SearchDimension.from_values(name, values) for name, values in grid.items()], rows
    )


def points_of(grid: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


@pytest.fixture(scope="module")
def mixed() -> StudySummary:
    """Two replicates: those with dropout are solved, later with less weight decay; the others are not."""
    rows = []
    for number, point in enumerate(points_of(GRID) * 2):
        if point["dropout"]:
            rows.append(solved(number, point, (200 if point["weight_decay"] == 1.0 else 400) + number))
        elif point["grokfast_lambda"] == 2.0:
            rows.append(unsolved(number, point, 0.2, "pruned"))
        else:
            rows.append(unsolved(number, point, 0.3 + number / 1000))
    return make_summary(rows)


def drawn(figure: Figure) -> Figure:
    """Return the figure after its layout."""
    with style.figure_style():
        assert len(style.figure_bytes(figure, "png")) > 1000
    return figure


def test_counts_and_marginals(mixed: StudySummary) -> None:
    assert mixed.counts == {"solved": 12, "not solved": 8, "pruned": 4, "failed": 0, "running": 0, "waiting": 0}
    without, with_dropout = mixed.marginals["dropout"]
    assert (without.level, without.ended, without.solved, without.solved_share) == ("0", 12, 0, 0.0)
    assert without.epochs_to_solve_mean is None and without.epochs_to_solve_median is None
    epochs = [t.epochs_to_solve for t in mixed.trials if t.epochs_to_solve is not None]
    assert (with_dropout.ended, with_dropout.solved, with_dropout.solved_share) == (12, 12, 1.0)
    assert with_dropout.epochs_to_solve_mean == pytest.approx(sum(epochs) / 12)
    assert with_dropout.epochs_to_solve_median == np.median(epochs)
    values = [t.value for t in mixed.trials if not t.point["dropout"] and t.value is not None]
    assert without.with_value == 12 and without.value_mean == pytest.approx(sum(values) / 12)
    assert without.value_median == pytest.approx(np.median(values))
    # Levels are ascending, whatever the order of the list.
    assert [m.level for m in mixed.marginals["weight_decay"]] == ["0.1", "1"]
    assert mixed.importance.most_important == "dropout" and mixed.dimensions_by_importance()[0].name == "dropout"
    assert "pruned trials count with the accuracy at which they were pruned (4)" in mixed.importance.notes


def test_trials_without_an_objective() -> None:
    points = points_of(GRID)
    rows = [unsolved(k, point, 0.1, "failed") for k, point in enumerate(points)]
    failed = make_summary(rows)
    assert failed.counts["failed"] == 12
    assert failed.importance.terms == () and failed.importance.most_important is None
    assert (
        failed.importance.notes[0]
        == "no trial has an objective yet, so the importance of the hyperparameters is unknown"
    )
    assert all((m.solved_share, m.value_mean) == (0.0, None) for m in failed.marginals["dropout"])
    waiting = make_summary([TrialSummary(k, "waiting", point) for k, point in enumerate(points)])
    assert all((m.ended, m.solved_share) == (0, None) for m in waiting.marginals["dropout"])
    running = TrialSummary(0, "running", points[0], 0.5, curve={1: 0.5})
    assert make_summary([running]).importance.trials == 0


def test_values_outside_of_the_lists() -> None:
    points = points_of(GRID)
    rows = [unsolved(k, point, 0.1 + k / 50) for k, point in enumerate(points)]
    found = make_summary([*rows, unsolved(12, {**points[0], "weight_decay": 1 / 3}, 0.9)])
    assert found.importance.method == "exact" and found.importance.trials == 12
    assert "trials at values outside of the lists are left out (1)" in found.importance.notes
    assert sum(m.ended for m in found.marginals["weight_decay"]) == 12
    figure = curves_by_configuration(found)
    assert figure is not None and "1 trials at values outside of the lists" in figure.get_supxlabel()


def test_levels_of_a_range() -> None:
    rate = SearchDimension("learning_rate", low=1e-4, high=1.0, log=True)
    assert rate.edges == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert [rate.level(v) for v in (1e-4, 9e-4, 2e-3, 0.05, 0.5, 1.0, 7)] == [0, 0, 1, 2, 3, 3, 3]
    assert rate.labels[1] == "0.001 to 0.01" and rate.level(None) is None
    masks = SearchDimension.from_values("dropout_mask", ("sample", "batch"))
    assert masks.labels == ("sample", "batch") and masks.level("batch") == 1 and masks.level("other") is None


def test_numbers_as_json(mixed: StudySummary) -> None:
    tree = json.loads(json.dumps(mixed.to_json(), allow_nan=False))
    assert tree["counts"] == mixed.counts and len(tree["trials"]) == 24
    assert tree["importance"]["decides"] == "dropout"
    assert [m["solved"] for m in tree["marginals"]["dropout"]] == [0, 12]
    assert tree["trials"][1]["epochs_to_solve"] == mixed.trials[1].epochs_to_solve


def test_every_curve_is_in_its_panel(mixed: StudySummary) -> None:
    figure = curves_by_level(mixed)
    assert figure is not None
    drawn(figure)
    by_title = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    first, second = (d.name for d in mixed.dimensions_by_importance()[:2])
    assert first == "dropout" and second == "weight_decay"
    panels = figure.axes
    assert len(panels) == 4 and set(by_title) == {"dropout = 0", "dropout = 0.1"}
    for k, axes in enumerate(panels):
        dropout, decay = GRID["dropout"][k % 2], sorted(map(float, GRID["weight_decay"]))[k // 2]
        here = [t for t in mixed.trials if (t.point["dropout"], t.point["weight_decay"]) == (dropout, decay)]
        [curves] = [c for c in axes.collections if isinstance(c, LineCollection)]
        segments, colours = curves.get_segments(), np.asarray(curves.get_edgecolor())
        found = {(*np.ravel(s).tolist(), to_hex(c)) for s, c in zip(segments, colours, strict=True)}
        assert found == {(*itertools.chain(*t.curve.items()), to_hex(OUTCOME_COLOURS[t.outcome])) for t in here}
        ends = {tuple(place) for marks in axes.lines for place in np.asarray(marks.get_xydata()).tolist()}
        assert ends == {list(t.curve.items())[-1] for t in here if t.outcome in ("solved", "pruned")}
        assert axes.texts[0].get_text() == f"{sum(t.outcome == 'solved' for t in here)} of 6 solved"
        assert axes.get_xscale() == "log"


def test_a_panel_for_each_configuration_of_table_1() -> None:
    points = points_of(TABLE_1)
    rows = [
        solved(k, p, 100 + k) if k % 3 else unsolved(k, p, 0.4) if k % 2 else TrialSummary(k, "waiting", p)
        for k, p in enumerate(points)
    ]
    found = make_summary(rows, TABLE_1)
    figure = curves_by_configuration(found)
    assert figure is not None and len(points) == 384
    [axes] = drawn(figure).axes
    width, height = figure.get_size_inches()
    assert width == style.PAGE_WIDTH and height < 10
    frames = [patches for patches in axes.collections if not isinstance(patches, LineCollection)]
    assert sum(len(patches.get_paths()) for patches in frames) == 384
    [curves] = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert len(curves.get_segments()) == sum(bool(t.curve) for t in rows) == 320
    # No two curves share a panel, and each is within its own.
    corners = {
        (math.floor(4 * min(s[:, 0])), math.floor(4 * min(s[:, 1]))) for s in map(np.asarray, curves.get_segments())
    }
    assert len(corners) > 250
    # Every label of every dimension occurs once per group.
    texts = [text.get_text() for text in axes.texts]
    assert {"dropout", "λ", "weight decay", "width d", "learning rate", "heads"} <= set(texts)
    assert len(style.figure_bytes(figure, "svg")) < 500_000


def test_where_a_trial_stands_in_the_sheet() -> None:
    """The one solved trial of a grid is in the column and row of its values."""
    points = points_of(GRID)
    rows = [solved(k, p, 300) if k == 7 else unsolved(k, p, 0.01) for k, p in enumerate(points)]
    figure = curves_by_configuration(make_summary(rows))
    assert figure is not None
    [axes] = drawn(figure).axes
    [curves] = [c for c in axes.collections if isinstance(c, LineCollection)]
    colours = [to_hex(colour) for colour in np.asarray(curves.get_edgecolor())]
    segment = np.asarray(curves.get_segments()[colours.index(to_hex(OUTCOME_COLOURS["solved"]))])
    x, y = segment[:, 0].mean(), segment[:, 1].mean()
    nearest: dict[str, tuple[float, str]] = {}
    for text in axes.texts:
        place: Any = text.xy  # type: ignore[attr-defined]
        across, down = (isinstance(text.xycoords, tuple) and text.xycoords[k] == "data" for k in (0, 1))  # type: ignore[attr-defined]
        if across or down:
            line = f"{'across' if across else 'down'} {text.xyann[1 if across else 0]:.0f}"  # type: ignore[attr-defined]
            distance = abs(place[0] - x) if across else abs(place[1] - y)
            nearest[line] = min(nearest.get(line, (math.inf, "")), (distance, text.get_text()))
    assert sorted(label for _, label in nearest.values()) == sorted(f"{v:.4g}" for v in map(float, points[7].values()))


def test_cells_of_the_map(mixed: StudySummary) -> None:
    figure = epochs_to_solve_heatmap(mixed)
    assert figure is not None
    drawn(figure)
    without, with_dropout = figure.axes[:2]
    assert (without.get_title(), with_dropout.get_title()) == ("dropout = 0", "dropout = 0.1")
    assert [t.get_text() for t in with_dropout.get_xticklabels()] == ["0.1", "1"]
    assert [t.get_text() for t in without.get_yticklabels()] == ["0", "0.5", "2"]
    assert {to_hex(cell.get_facecolor()) for cell in without.patches} == {to_hex(UNSOLVED_COLOUR)}
    assert {t.get_text() for t in without.texts} == {"0/2"}
    words = {tuple(map(float, t.get_position())): t.get_text() for t in with_dropout.texts}
    colours = {}
    for cell in with_dropout.patches:
        assert isinstance(cell, Rectangle)
        colours[cell.get_x() + cell.get_width() / 2, cell.get_y() + cell.get_height() / 2] = cell.get_facecolor()
    for (i, weight_decay), (j, lam) in itertools.product(enumerate((0.1, 1.0)), enumerate((0.0, 0.5, 2.0))):
        point = {"dropout": 0.1, "weight_decay": weight_decay, "grokfast_lambda": lam}
        epochs = [t.epochs_to_solve for t in mixed.trials if t.point == point and t.epochs_to_solve is not None]
        assert words[i, j] == f"{np.median(epochs):.0f}\n2/2"
    greens = [np.asarray(colour)[1] for place, colour in sorted(colours.items())]
    assert min(greens[:3]) > max(greens[3:])  # slower with less weight decay, and lighter


def test_dots_over_ranges() -> None:
    generator = np.random.default_rng(0)
    dimensions = [
        SearchDimension("grokfast_lambda", low=0, high=2),
        SearchDimension("weight_decay", low=0.01, high=1, log=True),
        SearchDimension.from_values("dropout", (0.0, 0.1)),
    ]
    rows = []
    for k in range(30):
        point = {"grokfast_lambda": generator.uniform(0, 2), "weight_decay": 10 ** generator.uniform(-2, 0)}
        where: dict[str, Value] = {**point, "dropout": 0.1 * (k % 2)}
        rows.append(solved(k, where, 100 + 10 * k) if k % 4 == 1 else unsolved(k, where, 0.3 + k / 100))
    found = summarize_trials("ranges", EPOCHS, dimensions, rows)
    assert found.importance.method == "least squares" and found.importance.cells == 0
    assert "cut into bins" in " ".join(found.importance.notes)
    figure = epochs_to_solve_heatmap(found)
    assert figure is not None
    axes = drawn(figure).axes[1]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    dots = [c for c in axes.collections if isinstance(c, PathCollection)]
    places = {tuple(place) for c in dots for place in np.asarray(c.get_offsets()).tolist()}
    assert places == {(t.point["weight_decay"], t.point["grokfast_lambda"]) for t in rows if t.point["dropout"]}
    assert np.asarray(dots[1].get_array()).tolist() == [t.epochs_to_solve for t in rows if t.outcome == "solved"]
    sheet = curves_by_configuration(found)
    assert sheet is not None and "best first" in sheet.get_supxlabel()
    numbers = [int(text.get_text()) for text in sheet.axes[0].texts]
    assert numbers == [t.number for t in sorted(rows, key=lambda t: -(t.value or 0))]


def test_bars_of_importance(mixed: StudySummary) -> None:
    figure = importance_bars(mixed)
    assert figure is not None
    [axes] = drawn(figure).axes
    bars = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
    terms, importance = mixed.importance.terms, mixed.importance
    assert importance.higher is not None and importance.seed is not None
    assert bars == pytest.approx(
        [100 * share for share in (*(t.share for t in terms), importance.higher, importance.seed)]
    )
    assert sum(bars) == pytest.approx(100)
    ticks = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines]
    assert ticks == pytest.approx([100 * term.chance_level for term in terms])
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "dropout" and len(labels) == 8 and labels[-2:] == ["three or more", "seed"]


def test_bars_of_marginals(mixed: StudySummary) -> None:
    figure = solved_share_bars(mixed)
    assert figure is not None
    dropout = drawn(figure).axes[0]
    assert dropout.get_xlabel() == "dropout"
    assert [bar.get_height() for bar in dropout.patches if isinstance(bar, Rectangle)] == [0, 100]
    assert [text.get_text() for text in dropout.texts] == ["0/12", "12/12"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [TrialSummary(0, "waiting", points_of(GRID)[0])],
        [unsolved(k, p, 0.1, "failed") for k, p in enumerate(points_of(GRID))],
        [TrialSummary(0, "failed", points_of(GRID)[0], curve={1: 0.5})],
        [TrialSummary(0, "running", points_of(GRID)[0], curve={16: 0.5})],
        [solved(0, points_of(GRID)[0], 16)],
    ],
    ids=["empty", "waiting", "failed", "one failed", "running", "one solved"],
)
@pytest.mark.parametrize(
    "grid", [GRID, {"dropout": (0.0,)}, {}, {"dropout": (0.0, 0.1)}], ids=["three", "one level", "none", "one"]
)
def test_what_can_be_drawn_is_drawn(rows: list[TrialSummary], grid: dict[str, Sequence[Value]]) -> None:
    found = make_summary(rows, grid)
    json.dumps(found.to_json(), allow_nan=False)
    with style.figure_style():
        figures = {figure.name: figure.draw() for figure in study_figures(found)}
        for figure in figures.values():
            if figure is not None:
                style.figure_bytes(figure, "svg")
    has_curves = any(row.curve for row in rows)
    assert all((figures[name] is not None) == has_curves for name in ("study-curves", "study-configurations"))


def test_more_trials_than_fit_on_a_page() -> None:
    found = make_summary(
        [unsolved(k, {"dropout": k / 1000}, k / 1000) for k in range(500)], {"dropout": (0.0, *range(1, 400))}
    )
    figure = curves_by_configuration(found)
    assert figure is not None and "(the best 384 of 500)" in figure.get_supxlabel()


def make_spread(point: Mapping[str, Value], epochs: Sequence[int], ended: int, seeds: int = 3) -> SeedSpread:
    padded = [*epochs, *[math.inf] * (seeds - len(epochs))]
    median, worst = (None if math.isinf(x) else int(x) for x in (statistics.median_high(padded), max(padded)))
    return SeedSpread(point, seeds, ended, tuple(epochs), median, worst)


def line(axes: Axes, label: str) -> list[tuple[float, float]]:
    [found] = [line for line in axes.lines if line.get_label() == label]
    return [(float(x), float(y)) for x, y in np.asarray(found.get_xydata())]


def test_seeds_of_a_configuration(mixed: StudySummary) -> None:
    points = points_of({"weight_decay": (0.1, 1.0), "dropout": (0.0, 0.1)})
    seed_spreads = [
        make_spread(points[0], [100, 200, 300], 3),
        make_spread(points[1], [50, 400], 3),
        make_spread(points[2], [60], 3),
        make_spread(points[3], [40], 1),  # one seed has no spread
    ]
    assert epochs_to_solve_by_seed(mixed) is None
    assert epochs_to_solve_by_seed(replace(mixed, seed_spreads=tuple(seed_spreads[3:]))) is None
    found = replace(mixed, seed_spreads=tuple(seed_spreads))
    figure = drawn(epochs_to_solve_by_seed(found) or Figure())
    [axes] = figure.axes
    assert line(axes, "solved seed") == [(100, 0), (200, 0), (300, 0), (50, 1), (400, 1), (60, 2)]
    assert line(axes, "median") == [(200, 0), (400, 1)]
    unsolved = line(axes, "unsolved seed")
    assert [row for _, row in unsolved] == [1, 2, 2] and len(set(unsolved)) == 3
    low, high = axes.get_xlim()
    assert low < 50 and all(EPOCHS < epoch < high for epoch, _ in unsolved)
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "weight decay 0.1, dropout 0",
        "weight decay 0.1, dropout 0.1",
        "weight decay 1, dropout 0",
    ]
    assert [text.get_text() for text in axes.texts] == ["3/3", "2/3", "1/3"]
    top, bottom = axes.get_ylim()
    assert top > bottom  # the best is above
    rows = dict(study_page(found, "").table)
    words = "weight_decay 0.1, dropout 0: 3 of 3 solved, median 200 epochs, worst 300 epochs"
    assert rows["best configuration over its seeds"] == words
    tree = json.loads(json.dumps(found.to_json()))
    assert tree["configurations"][1] == {
        "point": {"weight_decay": 0.1, "dropout": 0.1},
        "seeds": 3,
        "ended": 3,
        "epochs_to_solve": [50, 400],
        "median": 400,
        "worst": None,
    }


def test_only_the_best_configurations_are_drawn_and_seeds_of_which_none_is_solved() -> None:
    points = [{"weight_decay": k / 100} for k in range(100)]
    many = replace(make_summary([]), seed_spreads=tuple(make_spread(point, [10, 20], 3) for point in points))
    [axes] = drawn(epochs_to_solve_by_seed(many) or Figure()).axes
    assert len(axes.get_yticks()) == 30 and any("30" in figure.caption for figure in STUDY_FIGURES)
    hopeless = replace(many, seed_spreads=(make_spread(points[0], [], 12, 12),))
    [axes] = drawn(epochs_to_solve_by_seed(hopeless) or Figure()).axes
    assert len(line(axes, "unsolved seed")) == 12 and line(axes, "median") == []
    assert [text.get_text() for text in axes.get_yticklabels()] == ["weight decay 0"]
