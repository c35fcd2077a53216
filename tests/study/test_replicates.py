"""Statistics over seeds are compared with those of plain numbers, and used for ranking and export."""

from __future__ import annotations

import io
import json
import math
import statistics
import tomllib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from miiii_search.cli.views.study_status import status_view
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.database import Database
from miiii_search.storage.records import FinishedTrial
from miiii_search.study.create import create_study
from miiii_search.study.export import export_best, read_configuration
from miiii_search.study.finished_trials import finished_trials
from miiii_search.study.replicates import MEDIAN, WORST, rank_configurations
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from tests.support import claim, end, make_spec, metrics_of

EPOCHS = 48
OUTCOMES = st.integers(1, EPOCHS) | st.sampled_from(["not solved", "pruned", "failed", "running", "waiting"])


def make_trial(number: int, point: float, outcome: int | str, value: float = 0.5) -> FrozenTrial:
    """Return a trial that was solved at an epoch, or that has another outcome."""
    states = {
        "not solved": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
        "running": TrialState.RUNNING,
        "waiting": TrialState.WAITING,
    }
    solved = outcome if isinstance(outcome, int) else None
    state = TrialState.COMPLETE if solved else states[str(outcome)]
    has_value = state in (TrialState.COMPLETE, TrialState.PRUNED)
    return FrozenTrial(
        number=number,
        state=state,
        value=(2 - solved / EPOCHS if solved else value) if has_value else None,
        datetime_start=None if state == TrialState.WAITING else datetime(2026, 1, 1),
        datetime_complete=datetime(2026, 1, 2) if state.is_finished() else None,
        params={"dropout": point},
        distributions={"dropout": FloatDistribution(0, 1)},
        # The epochs to solve of a pruned trial do not count.
        user_attrs={"epochs_to_solve": 7 if outcome == "pruned" else solved},
        system_attrs={},
        intermediate_values={},
        trial_id=number,
    )


def ended_trials(configurations: Sequence[Sequence[int | str]]) -> list[FinishedTrial]:
    """Return trials in the order of the queue: one replicate of all configurations, then the next."""
    runs = [(k, r) for r in range(9) for k in range(len(configurations)) if r < len(configurations[k])]
    return finished_trials(make_trial(n, k / 100, configurations[k][r]) for n, (k, r) in enumerate(runs))


def known(x: float) -> int | None:
    return None if math.isinf(x) else int(x)


@given(st.lists(st.lists(OUTCOMES, min_size=1, max_size=5), min_size=1, max_size=6), st.sampled_from([MEDIAN, WORST]))
def test_figures_and_order(configurations: list[list[int | str]], by: str) -> None:
    """Every seed counts, also unqueued ones. An unsolved seed counts as infinity."""
    seeds, expected = 5, {}
    for k, outcomes in enumerate(configurations):
        epochs = [x if isinstance(x, int) else math.inf for x in outcomes] + [math.inf] * (seeds - len(outcomes))
        if any(x not in ("running", "waiting") for x in outcomes):
            expected[k / 100] = (statistics.median_high(epochs), max(epochs))
    found = rank_configurations(ended_trials(configurations), seeds, by)
    assert {s.params["dropout"]: (s.median, s.worst) for s in found} == {
        point: (known(median), known(worst)) for point, (median, worst) in expected.items()
    }
    ranks = [expected[s.params["dropout"]] for s in found]
    assert ranks == sorted(ranks, key=None if by == MEDIAN else lambda rank: rank[::-1])
    for standing in found:
        outcomes = configurations[round(100 * standing.params["dropout"])]
        assert standing.solved == sum(isinstance(x, int) for x in outcomes)
        assert len(standing.trials) == sum(x not in ("running", "waiting") for x in outcomes)


def order(configurations: Sequence[Sequence[int | str]], seeds: int, by: str) -> list[int]:
    return [round(100 * s.params["dropout"]) for s in rank_configurations(ended_trials(configurations), seeds, by)]


def test_ties() -> None:
    late_and_steady, lucky, unsteady = [20, 20, 20], [1, 1, 40], [10, 20, 40]
    assert order([late_and_steady, lucky, unsteady], 3, MEDIAN) == [1, 0, 2]  # 20 and 20: by the worst
    assert order([late_and_steady, lucky, unsteady], 3, WORST) == [0, 1, 2]  # 40 and 40: by the median
    # Neither median nor worst: the mean objective, and of equal ones the lower number.
    assert order([["not solved"] * 3, ["not solved", "not solved", 20], ["not solved"] * 3], 3, MEDIAN) == [1, 0, 2]
    assert order([["failed"], ["not solved"]], 1, MEDIAN) == [1, 0]


def test_one_lucky_seed_does_not_lead() -> None:
    """Only the best have three seeds. The single lucky seed of another configuration does not make it lead."""
    assert order([[5, 40, 44], [10], [6, 48, "not solved"]], 3, MEDIAN) == [0, 2, 1]


def test_of_one_seed_each_it_is_the_order_of_trials() -> None:
    found = rank_configurations(ended_trials([[30], [10], ["not solved"], [20]]), 1)
    assert [s.trials[0].number for s in found] == [1, 3, 0, 2]
    assert found[0].median_trial is found[0].worst_trial is found[0].trials[0]


SPACE = {"dropout": (0.0, 0.1)}


def make_study(database: Database, outcomes: dict[float, list[int | None]], seeds: int) -> Study:
    """Return a study of two configurations whose seeds are solved at these epochs, or not solved."""
    study = create_study(database, "study", make_spec(space=SPACE, replicates=seeds))
    left = {point: list(epochs) for point, epochs in outcomes.items()}
    for _ in range(sum(map(len, outcomes.values()))):
        lease = claim(study)
        solved = left[study.trials()[lease.number].params["dropout"]].pop(0)
        value = 2 - solved / EPOCHS if solved else 0.5
        accuracy = 1.0 if solved else 0.5
        metrics = metrics_of(study, accuracy, solved)
        end(study, lease, value=value, epochs_to_solve=solved, metrics=metrics)
    return study


def test_best_by_each_measure(database: Database, tmp_path: Any) -> None:
    study = make_study(database, {0.0: [4, 12, 44], 0.1: [24, 16, 20]}, 3)
    by_trial, by_median, by_worst = (export_best(study, by) for by in ("trial", "median", "worst"))
    assert (by_trial.hyperparameters.dropout, by_trial.experiment.seed) == (0.0, 0)
    assert "ranking" not in by_trial.provenance
    assert (by_median.hyperparameters.dropout, by_median.experiment.seed) == (0.0, 1)
    assert (by_worst.hyperparameters.dropout, by_worst.experiment.seed) == (0.1, 0)
    assert by_median.metrics is not None and by_median.metrics.epochs_to_solve == 12
    assert by_worst.metrics is not None and by_worst.metrics.epochs_to_solve == 24
    ranking = by_worst.provenance["ranking"]
    numbers = [t.number for t in study.trials() if t.params["dropout"] == 0.1]
    assert ranking == {
        "by": "worst",
        "seeds": 3,
        "ended": 3,
        "solved": 3,
        "median": 20,
        "worst": 24,
        "trials": numbers,
    }
    assert by_worst.provenance["trial"] in numbers
    for kind, text in (("toml", by_worst.to_toml()), ("json", by_worst.to_json())):
        (tmp_path / f"best.{kind}").write_text(text)
        assert read_configuration(tmp_path / f"best.{kind}") == by_worst
    assert tomllib.loads(by_median.to_toml())["provenance"]["ranking"]["median"] == 12


def test_what_no_configuration_comes_to_is_said(database: Database) -> None:
    study = make_study(database, {0.0: [4, None, None], 0.1: [24, 16, None]}, 3)
    assert export_best(study, "median").experiment.seed == 0  # 24, the later of the two that are solved
    assert "worst" not in export_best(study, "median").provenance["ranking"]
    with pytest.raises(MiiiiSearchError, match=r"solved with all of its seeds \(.* 3\).*--by median or trial$"):
        export_best(study, "worst")
    none = create_study(database, "none", make_spec(space=SPACE, replicates=2))
    with pytest.raises(MiiiiSearchError, match=r"`none` is solved with more than half of its seeds .*--by trial$"):
        export_best(none, "median")


def test_status_shows_the_best_configurations(database: Database) -> None:
    study = make_study(database, {0.0: [4, 12], 0.1: [24, 1616, None]}, 3)
    status = read_status(study)
    best, other = json.loads(json.dumps(status.to_json()))["configurations"]
    assert (best["params"], best["seeds"], best["ended"], best["solved"]) == ({"dropout": 0.0}, 3, 2, 2)
    assert (best["median"], best["worst"], len(best["trials"])) == (12, None, 2)
    assert (other["median"], other["solved"], other["ended"]) == (1616, 2, 3)
    console = Console(width=110, file=io.StringIO())
    with console.capture() as captured:
        console.print(status_view(status))
    lines = captured.get().splitlines()
    at = next(k for k, line in enumerate(lines) if "median" in line)
    assert lines[at + 1].split()[:3] == ["2/3", "12", "2"] and lines[at + 1].rstrip().endswith("dropout 0")
    assert lines[at + 2].split()[:3] == ["2/3", "1,616", "3"]
    single = read_status(create_study(database, "single", make_spec()))
    assert single.configurations == [] and single.to_json()["configurations"] == []
