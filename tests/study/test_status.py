"""The state of a study as commands read it by SQL, compared with Optuna's public interface."""

from __future__ import annotations

import json
import math
import random
from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState, create_trial

from miiii_search.cli.views.study_status import waiting_for
from miiii_search.config.study_sections import Budget, Replicates
from miiii_search.errors import MiiiiSearchError
from miiii_search.runs.trial_runs import find_finished_trial
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.records import PrunedTrial
from miiii_search.storage.study_attrs import PROGRAMS_KEY
from miiii_search.study.best_trials import read_best, read_best_trials
from miiii_search.study.create import create_study
from miiii_search.study.export import export_best
from miiii_search.study.finished_trials import finished_trials, read_varied_parameters
from miiii_search.study.overview import list_studies
from miiii_search.study.replicates import MEDIAN, WORST, rank_configurations
from miiii_search.study.state import A_COORDINATOR, A_WORKER
from miiii_search.study.status import BEST_TRIALS, LAST_PRUNED, StatusReader, read_status
from miiii_search.study.study import Study
from miiii_search.study.trials import distributions
from tests.support import OVERDUE, claim, end, make_spec, read_back

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
NOON = datetime(2026, 1, 1, 12)


def make_random(database: Database, chance: random.Random, n: int, **fields: Any) -> Study:
    """Return a study with queued trials, a running one, and `n` in random states with many equal values."""
    study = create_study(database, "random", make_spec(budget=Budget(trials=5), **fields))
    claim(study)
    theirs, space = read_back(study), distributions(study.spec)
    for _ in range(n):
        state = chance.choice([*ENDED, TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING])
        point = {name: chance.choice(getattr(dimension, "choices", ())) for name, dimension in space.items()}
        epochs = chance.choice([None, 4, 8])
        attributes = {
            "epochs_to_solve": epochs,
            "epochs_trained": chance.choice([16, 32, 48]),
            "reason": f"it looked [b]bad[/b] {chance.random()}",
        }
        value = chance.choice([0.0, -0.0, 0.25, 0.5, 0.5, math.inf, -math.inf, 1e-300])
        is_told = state == TrialState.COMPLETE or (state == TrialState.PRUNED and chance.random() < 0.8)
        added = create_trial(
            state=state,
            value=value if is_told else None,
            params=point,
            distributions=space,
            user_attrs=attributes if state.is_finished() and chance.random() < 0.9 else {},
            intermediate_values={8: chance.random(), 4: chance.random()},
        )
        if state.is_finished():
            added.datetime_complete = NOON + timedelta(seconds=chance.choice([0, 0, 0.5, 1, 10]))
        theirs.add_trial(added)
    return study


def in_order(trials: list[FrozenTrial]) -> list[int]:
    """Return the numbers of the finished trials: COMPLETE, PRUNED, FAIL, each by value, then by number."""
    value = {t.number: 0.0 if t.value is None else t.value for t in trials}
    return [
        number
        for state in ENDED
        for number in sorted((t.number for t in trials if t.state == state), key=lambda n: (-value[n], n))
    ]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_shown_is_what_optuna_reads(database: Database, seed: int) -> None:
    study = make_random(database, random.Random(seed), 40, replicates=Replicates(count=2))
    trials = read_back(study).get_trials()
    status, order = read_status(study), in_order(trials)
    assert status.counts == {
        name: sum(t.state.name.lower() == name for t in trials)
        for name in ("waiting", "running", "complete", "pruned", "fail")
    }
    by_number = {trial.number: trial for trial in trials}
    assert status.best_trials == [by_number[n] for n in order[:BEST_TRIALS]]
    assert read_best_trials(study, 1000) == [by_number[n] for n in order]
    complete = [n for n in order if by_number[n].state == TrialState.COMPLETE]
    best = read_best(study)
    assert status.best == best == by_number[complete[0]]
    assert best is not None and best.value == read_back(study).best_value
    told = [t.user_attrs["epochs_trained"] for t in trials if "epochs_trained" in t.user_attrs]
    assert status.epochs_trained == pytest.approx(sum(told) / len(told))
    given_up = sorted(
        (t for t in trials if t.state == TrialState.PRUNED), key=lambda t: (t.datetime_complete or NOON, t.number)
    )
    expected = [PrunedTrial(t.number, t.user_attrs.get("epochs_trained"), t.user_attrs.get("reason")) for t in given_up]
    assert status.pruned == expected
    assert read_status(study, LAST_PRUNED).pruned == expected[-LAST_PRUNED:]
    assert status.configurations == rank_configurations(finished_trials(trials), 2)
    assert StatusReader(study).rank_configurations(WORST) == rank_configurations(finished_trials(trials), 2, WORST)
    values = {name: {t.params.get(name) for t in trials if t.state in ENDED} for name in study.spec.space}
    assert read_varied_parameters(study) == [name for name, found in values.items() if len(found) > 1]
    [running] = status.running
    assert running.params == by_number[running.number].params
    assert json.loads(json.dumps(status.to_json()))["best"]["number"] == complete[0]
    listed = list_studies(database)[0]
    assert listed.counts == status.counts
    for trial in trials:
        assert study.read_trial(trial.number) == trial
    assert study.read_trial(len(trials)) is None
    with pytest.raises(MiiiiSearchError, match=f"no trial {len(trials)}; its trials are 0 to {len(trials) - 1}"):
        find_finished_trial(study, len(trials))


def test_a_reader_sees_what_ended_since(database: Database) -> None:
    """The cache holds which trials had finished, not how many."""
    study = create_study(database, "grows", make_spec(replicates=Replicates(count=2)))
    reader = StatusReader(study)
    assert reader.read().configurations == [] and reader.read().best is None
    for k in range(4):
        end(study, claim(study), value=0.25 + k / 8, epochs_to_solve=None)
        trials = read_back(study).get_trials()
        assert reader.read().configurations == rank_configurations(finished_trials(trials), 2)
        assert reader.read().best_trials[0].number == k


def statements_of(database: Database, action: Any) -> int:
    """Return how many SQL statements an action executes."""
    seen: list[str] = []

    def count(_c: object, _d: object, statement: str, *_: object) -> None:
        seen.append(statement)

    for engine in (database.engine, database.optuna.engine):
        sa.event.listen(engine, "before_cursor_execute", count)
    action()
    for engine in (database.engine, database.optuna.engine):
        sa.event.remove(engine, "before_cursor_execute", count)
    return len(seen)


def test_no_more_trials_are_read_than_are_shown(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna builds only the trials that a view lists, and the number of statements is constant."""
    study = create_study(database, "many", make_spec())
    for k in range(BEST_TRIALS + 6):
        metrics = {"epochs_trained": 48, "reason": "it was bad"}
        end(study, claim(study), TrialState.PRUNED if k % 2 else TrialState.COMPLETE, k / 16, **metrics)
    built: list[int] = []
    original = optuna.storages.RDBStorage._build_frozen_trial_from_trial_model

    def build(self: Any, model: Any) -> FrozenTrial:
        built.append(model.number)
        return original(self, model)

    monkeypatch.setattr(optuna.storages.RDBStorage, "_build_frozen_trial_from_trial_model", build)
    few = statements_of(database, lambda: read_status(study, LAST_PRUNED))
    assert len(built) == BEST_TRIALS
    for _ in range(6):
        end(study, claim(study), value=0.25)
    assert statements_of(database, lambda: read_status(study, LAST_PRUNED)) == few
    built.clear()
    export_best(study)
    assert len(built) == 1
    built.clear()
    find_finished_trial(study, 3)
    assert built == [3]


def test_who_is_missing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study waits for a worker, for a coordinator, or for neither while trials are trained."""
    study = create_study(database, "s", make_spec(budget=Budget(trials=2)))

    def seen() -> tuple[str | None, str]:
        status, [listed] = read_status(study), list_studies(database)
        assert status.to_json()["waits_for"] == status.waits_for
        return status.waits_for, listed.state

    assert seen() == (A_WORKER, "waiting for a worker")
    end(study, claim(study))
    lease = claim(study)
    assert seen() == (None, "running") and read_status(study).advice is None
    with database.transaction() as connection:  # its worker is dead for longer than a coordinator would look on
        connection.execute(sa.update(schema.leases).values(expires_at=1.0, renewed_at=0.0))
    monkeypatch.setattr(schema, "server_start_time", lambda connection: sa.literal(0.0))
    assert seen() == (A_COORDINATOR, "waiting for a coordinator")
    status = read_status(study)
    assert [trial.number for trial in status.abandoned] == [lease.number]
    assert status.advice is not None and "coordinate --study s" in status.advice
    study.queue.requeue_overdue()
    assert seen() == (A_WORKER, "waiting for a worker") and read_status(study).abandoned == []
    end(study, claim(study))
    assert seen() == (None, "done")


def test_a_lease_that_has_just_run_out_is_not_abandoned(database: Database) -> None:
    """A coordinator returns such a trial within seconds. A trial that another program started has no lease."""
    study = create_study(database, "s", make_spec())
    claim(study, OVERDUE)
    assert read_status(study).abandoned == []
    number = read_back(study).ask().number
    [abandoned] = read_status(study).abandoned
    assert (abandoned.number, abandoned.worker) == (number, None)


def test_a_study_that_waits_for_its_selection(database: Database) -> None:
    spec = make_spec(space={"dropout": (0.0, 0.1)}, replicates=Replicates(count=2, top=1))
    study = create_study(database, "s", spec)
    for _ in range(2):
        end(study, claim(study))
    assert read_status(study).waits_for == A_COORDINATOR
    assert list_studies(database)[0].state == "waiting for a coordinator"
    # Another training program made it: a coordinator of any version may supervise it.
    with database.transaction() as connection:
        study_attrs.write(connection, study.study_id, {PROGRAMS_KEY: [99]})
    study.refresh()
    status = read_status(study)
    assert status.version_mismatch is not None and list_studies(database)[0].state == "waiting for a coordinator"
    assert waiting_for(status).startswith("waiting for a coordinator; start one: ")


def test_best_by_the_median_is_read_whole(database: Database) -> None:
    """The exported trial has its metrics, although the ranking reads only a few fields of each trial."""
    study = create_study(database, "s", make_spec(space={"dropout": (0.0, 0.1)}, replicates=Replicates(count=2)))
    for k in range(4):
        end(study, claim(study), value=1.5, epochs_to_solve=20 + k)
    exported = export_best(study, MEDIAN)
    assert exported.metrics is not None and exported.provenance["ranking"]["by"] == MEDIAN
