"""A running dashboard shows the current rows of the database, even if it has cached older ones."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from miiii_search.dashboard.app import make_application
from miiii_search.storage import schema
from miiii_search.storage.artifacts import Artifact
from miiii_search.storage.combined_artifact_store import CombinedArtifactStore
from miiii_search.storage.database import Database
from miiii_search.study.archive_export import export_study
from miiii_search.study.archive_import import import_study
from miiii_search.study.cleanup import cleanup
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete
from miiii_search.study.extend import ExtensionResult, extend
from miiii_search.study.study import Study
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import TrialResult
from tests.support import claim, end, make_spec, read_back

SPACE = {"dropout": (0.0, 0.1), "weight_decay": (0.0, 0.5, 1.0)}
Call = Callable[[str], Any]


@pytest.fixture
def call(database: Database) -> Call:
    """Return a function that sends a request to a running dashboard, and returns the JSON of its response."""
    app = make_application(database.optuna, CombinedArtifactStore(database))

    def call(path: str) -> Any:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "HTTP_HOST": "localhost",
            "QUERY_STRING": "",
        }
        environ |= {"wsgi.input": BytesIO(), "wsgi.errors": BytesIO(), "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
        return json.loads(b"".join(app(environ, lambda *_: lambda _: None)))

    return call


@pytest.fixture
def study(database: Database) -> Study:
    return create_study(database, "study", make_spec(space=SPACE))


def end_all(study: Study, value: Callable[[dict[str, Any]], float]) -> None:
    while study.counts()[TrialState.WAITING]:
        lease = claim(study)
        [trial] = study.read_trials([lease.trial_id]).values()
        end(study, lease, value=value(trial.params))


def importances(study: Study) -> dict[str, float]:
    """Return the importances without any cache."""
    evaluator = PedAnovaImportanceEvaluator()
    with warnings.catch_warnings():  # a warning that the target should be minimized, which it is
        warnings.simplefilter("ignore", UserWarning)
        return get_param_importances(read_back(study), target=lambda t: -(t.value or 0.0), evaluator=evaluator)


def shown(call: Call, study: Study) -> dict[str, float]:
    [found] = call(f"/api/studies/{study.study_id}/param_importances")["param_importances"]
    return {row["name"]: row["importance"] for row in found}


def test_importances_after_an_extension(call: Call, study: Study) -> None:
    end_all(study, lambda params: params["weight_decay"] + params["dropout"])
    assert shown(call, study) == pytest.approx(importances(study))
    extend(study, ["space.dropout=[0.2, 0.0, 0.1, 0.3]"])
    # The number of completed trials is the same: it is the key of the dashboard's cache.
    call(f"/api/studies/{study.study_id}")
    assert shown(call, study) == pytest.approx(importances(study))
    end_all(study, lambda params: params["weight_decay"] + params["dropout"])
    extend(study, ["space.weight_decay=[1.0, 0.5, 0.25, 0.0]"])
    end_all(study, lambda params: params["weight_decay"] + params["dropout"])
    assert shown(call, study) == pytest.approx(importances(study))
    [one, another] = importances(study).values()
    assert min(one, another) > 0.01
    detail = call(f"/api/studies/{study.study_id}")
    for trial in detail["trials"]:
        choices = {param["name"]: len(param["distribution"]["choices"]) for param in trial["params"]}
        assert choices == {"dropout": 4, "weight_decay": 4}


def test_extended_while_a_request_is_under_way(
    study: Study, call: Call, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that results from old rows are not shown to later visitors."""
    end_all(study, lambda params: params["weight_decay"] + params["dropout"])
    get_all_trials = optuna.storages._CachedStorage.get_all_trials
    extended: list[ExtensionResult] = []

    def read_then_extend(self: Any, *arguments: Any, **options: Any) -> Any:
        trials = get_all_trials(self, *arguments, **options)
        if not extended:
            extended.append(extend(study, ["space.dropout=[0.2, 0.0, 0.1, 0.3]"]))
            shown(call, study)  # another visitor meanwhile
        return trials

    monkeypatch.setattr(optuna.storages._CachedStorage, "get_all_trials", read_then_extend)
    shown(call, study)
    assert extended and shown(call, study) == pytest.approx(importances(study))


def test_links_that_tidy_removed(call: Call, study: Study) -> None:
    path = f"/api/studies/{study.study_id}"
    while study.counts()[TrialState.WAITING]:
        outcome = TrialResult(TrialState.COMPLETE, 0.5, "ended.", {}, [Artifact("a.txt", b"a")])
        study.queue.finish(Heartbeat(claim(study), 1, 1.0), outcome)
    assert all(trial["artifacts"] for trial in call(path)["trials"])
    cleanup(study, keep_records=1)
    assert sum(len(trial["artifacts"]) for trial in call(path)["trials"]) == 1


@pytest.mark.parametrize("name", ["study", "another"])
def test_a_study_with_the_id_of_a_deleted_one(call: Call, database: Database, study: Study, name: str) -> None:
    """Check a study whose id was used before, because SQLite reuses ids."""
    end_all(study, lambda params: 0.25 + params["dropout"])
    assert shown(call, study) == pytest.approx(importances(study))
    delete(study)
    new = create_study(database, name, make_spec(space=SPACE))
    end_all(new, lambda params: 0.5 + params["weight_decay"] / 4)
    assert shown(call, new) == pytest.approx(importances(new))
    detail = call(f"/api/studies/{new.study_id}")
    assert detail["name"] == name and min(trial["values"][0] for trial in detail["trials"]) == 0.5
    sqlite = database.url.drivername == "sqlite"
    assert (new.study_id == study.study_id) == sqlite


def test_a_study_imported_in_place_of_itself(call: Call, database: Database, study: Study, tmp_path: Path) -> None:
    """Check a restored database file, which is older than the cached rows."""
    export_study(study, tmp_path / "study.zip")
    end_all(study, lambda params: 0.25)
    assert {trial["state"] for trial in call(f"/api/studies/{study.study_id}")["trials"]} == {"Complete"}
    delete(study)
    new = import_study(database, tmp_path / "study.zip", None)
    assert {trial["state"] for trial in call(f"/api/studies/{new.study_id}")["trials"]} == {"Waiting"}


def test_a_study_of_another_program_with_the_id_of_a_deleted_one(call: Call, database: Database) -> None:
    def run(value: float) -> int:
        study = optuna.create_study(storage=database.optuna, study_name="theirs", direction="maximize")
        study.optimize(lambda trial: value + trial.suggest_float("x", 0, 0), n_trials=3)
        return study._study_id

    first = run(0.25)
    assert [trial["values"] for trial in call(f"/api/studies/{first}")["trials"]] == [[0.25]] * 3
    optuna.delete_study(study_name="theirs", storage=database.optuna)
    second = run(0.5)
    assert [trial["values"] for trial in call(f"/api/studies/{second}")["trials"]] == [[0.5]] * 3


def test_nothing_is_cached_anew_without_a_reason(call: Call, database: Database, study: Study) -> None:
    """Check that the caches stay when a study continues, or when another one is created."""
    path = f"/api/studies/{study.study_id}"
    end(study, claim(study))
    first = claim(study)
    call(path)
    statements: list[str] = []
    sa.event.listen(database.optuna.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    end(study, first)
    create_study(database, "another", make_spec(space=SPACE))
    app_reads = f"FROM {schema.trial_params.name}"
    call(path)
    assert not [text for text in statements if app_reads in text]
