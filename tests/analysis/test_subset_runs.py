"""Runs of a study over subsets: which tasks count, when they generalised, and what the figure shows of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_subsets import GROUPS, epochs_to_generalise_by_subset, group_of
from miiii_search.analysis.report.study_report import study_figures
from miiii_search.analysis.study_summary import StudySummary, summarize_trials
from miiii_search.analysis.subset_runs import SubsetRun, median_epochs, subset_run
from miiii_search.experiment.spec import Experiment
from tests.analysis.planted import make_record


def run_of(moduli: Any, generalised: list[int | None], solved_epoch: int | None = None, **fields: Any) -> SubsetRun:
    experiment = Experiment(p=13, epochs=1024, moduli=moduli, **fields)
    return subset_run(3, experiment, make_record(experiment, [16] * 5, generalised), solved_epoch)


def test_only_the_tasks_of_the_subset_count() -> None:
    run = run_of([3, 11], [32, 64, 96, None, 512])
    assert run == SubsetRun(3, "3,11", 2, 5, {3: 64, 11: 512})
    assert run_of("all but 2", [32, None, 96, None, 512]).generalised == {3: None, 5: 96, 7: None, 11: 512}
    assert run_of("all", [32] * 5).tasks_together == 5


def test_a_task_of_a_masked_study_is_compared_with_those_that_may_count() -> None:
    run = run_of("all", [None] * 4 + [128], task="masked")
    assert (run.tasks_together, run.of_tasks, run.generalised) == (1, 1, {11: 128})


def test_a_run_that_ends_before_the_third_evaluation_is_solved_all_the_same() -> None:
    assert run_of([2], [None] * 5, solved_epoch=1008).generalised == {2: 1008}


def test_an_experiment_without_a_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="has no subset"):
        run_of(None, [32] * 5)


def test_a_median_counts_runs_that_did_not_generalise_as_later_than_all_others() -> None:
    runs = [SubsetRun(k, "2", 1, 5, {2: epoch}) for k, epoch in enumerate([100, 300, None])]
    assert median_epochs(runs, 2) == 300
    assert median_epochs(runs[1:], 2) is None
    assert median_epochs(runs, 3) is None


@pytest.fixture
def summary() -> StudySummary:
    empty = summarize_trials("subsets", 1024, [], [])
    return replace(
        empty,
        subset_runs=(
            SubsetRun(0, "all", 3, 3, {2: 200, 3: 400, 5: None}),
            SubsetRun(1, "2", 1, 3, {2: 100}),
            SubsetRun(2, "5", 1, 3, {5: 900}),
            SubsetRun(3, "all but 2", 2, 3, {3: 300, 5: 800}),
        ),
    )


def test_groups(summary: StudySummary) -> None:
    assert [group_of(run) for run in summary.subset_runs] == [GROUPS[2], GROUPS[0], GROUPS[0], GROUPS[1]]


def drawn(figure: Figure, group: int, marker: str) -> list[tuple[int, float]]:
    """Return (index of the task, epoch) of the group's points with a marker."""
    return [
        (round(x), y)
        for line in figure.axes[0].lines
        if line.get_color() == style.OKABE_ITO[group] and line.get_marker() == marker
        for x, y in np.asarray(line.get_xydata()).tolist()
    ]


def test_the_figure_shows_every_task_of_every_run(summary: StudySummary) -> None:
    figure = epochs_to_generalise_by_subset(summary)
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2", "3", "5"]
    assert drawn(figure, 0, "o") == [(0, 100), (2, 900)]
    assert drawn(figure, 1, "o") == [(1, 300), (2, 800)]
    assert drawn(figure, 2, "o") == [(0, 200), (1, 400)]
    assert [index for index, _ in drawn(figure, 2, "x")] == [2]
    assert drawn(figure, 2, "_") == [(0, 200), (1, 400)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(GROUPS)


def test_other_studies_have_no_such_figure_and_no_such_numbers(summary: StudySummary) -> None:
    other = replace(summary, subset_runs=())
    assert epochs_to_generalise_by_subset(other) is None
    assert "subsets" not in other.to_json()
    assert [run["subset"] for run in summary.to_json()["subsets"]] == ["all", "2", "5", "all but 2"]
    assert "study-subsets" in [figure.name for figure in study_figures(summary)]
