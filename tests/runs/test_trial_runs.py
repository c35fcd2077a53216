"""Runs of ended trials, and artifacts that are attached to them afterwards."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard.artifact._backend import list_trial_artifacts

from miiii_search.analysis.findings import analyze
from miiii_search.config.study_sections import Pruning
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import hash_weights
from miiii_search.experiment.record import Record, WeightSnapshot
from miiii_search.runs import trial_runs
from miiii_search.runs.trial_runs import attach_artifacts, find_finished_trial, read_trial_run
from miiii_search.storage import artifact_stores, schema
from miiii_search.storage.artifact_stores import MARKER, ArtifactStoreUnavailableError, prepare_store
from miiii_search.storage.artifacts import Artifact
from miiii_search.storage.combined_artifact_store import CombinedArtifactStore
from miiii_search.storage.database import Database
from miiii_search.study.archive_export import export_study
from miiii_search.study.archive_import import import_study
from miiii_search.study.cleanup import CleanupResult, cleanup
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete, read_contents
from miiii_search.study.open import open_study
from miiii_search.study.study import Study
from miiii_search.training import run
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from miiii_search.worker.options import WorkerOptions
from miiii_search.worker.worker import Worker
from tests.analysis.figures.synthetic import make_record
from tests.dashboard.test_app import Serve, start  # noqa: F401
from tests.support import TINY, claim, end, everything, make_spec, metrics_of, read_back

FILES = [Artifact("report.html", b"<p>" * 400), Artifact("accuracy.png", b"\x89PNG" * 50)]
OTHERS = [Artifact("report.html", b"<b>" * 90)]
LONGER = TINY.model_copy(update={"epochs": 320, "solved_evaluations": 100})
"""Long enough for a snapshot, at epoch 256."""


def trial_of(study: Study, number: int) -> FrozenTrial:
    return study.trials()[number]


def ended(database: Database, name: str = "study", place: str | None = None) -> Study:
    """Return a study whose first two trials have ended, the better one first."""
    study = create_study(database, name, make_spec(), place)
    for value in (0.75, 0.5):
        end(study, claim(study), value=value)
    return study


def with_own_files(study: Study) -> None:
    """End a trial with a record and a figure."""
    lease, record = claim(study), make_record(study.spec.experiment)
    files = [Artifact("record.npz", record.to_npz()), Artifact("curves.png", b"\x89PNG")]
    outcome = TrialResult(TrialState.COMPLETE, 0.5, "ended.", {"metrics": metrics_of(study)}, files)
    assert study.queue.finish(Heartbeat(lease, 1, 1.0), outcome) == FinishStatus.WRITTEN


def on_page(study: Study, number: int) -> dict[str, bytes]:
    """Return the files on a trial's page, as the dashboard finds and reads them."""
    storage, trial = study.database.optuna, trial_of(study, number)
    attributes = storage.get_study_system_attrs(study.study_id), storage.get_trial_system_attrs(trial._trial_id)
    metas = list_trial_artifacts(*attributes, trial)
    read = CombinedArtifactStore(study.database).open_reader
    return {meta["filename"]: read(meta["artifact_id"]).read() for meta in metas}


def as_dict(files: Sequence[Artifact]) -> dict[str, bytes]:
    return {file.filename: file.data for file in files}


@pytest.mark.slow
def test_a_trial_is_read_as_the_run_that_it_was(database: Database, tmp_path: Path) -> None:
    """With `work --snapshots`, the run has everything that a folder of `train` has."""
    study = create_study(
        database, "study", make_spec(experiment=LONGER, space={"dropout": (0.1,)}, pruning=Pruning(rule="none"))
    )
    Worker(study, 1, WorkerOptions(snapshots=tmp_path)).run(threading.Event())
    read, problems = read_trial_run(study, find_finished_trial(study, 0), tmp_path)
    assert problems == [] and read.name == "study 0"
    looks: list[WeightSnapshot] = []
    alone = run.train(*study.trial_settings(trial_of(study, 0)), on_snapshot=looks.append)
    assert read.record is not None and read.weights is not None and read.metrics == alone.metrics
    for field in fields(Record):
        np.testing.assert_array_equal(getattr(read.record, field.name), getattr(alone.record, field.name))
    assert list(read.spectra) == [look.epoch for look in looks] == list(read.snapshots) == [256, 320]
    for look in looks:
        np.testing.assert_array_equal(read.spectra[look.epoch], look.spectrum)
        assert hash_weights(read.read_snapshot(look.epoch)) == hash_weights(look.weights)
    assert hash_weights(read.weights) == hash_weights(alone.weights)
    assert analyze(read).missing == []
    # There is a message if the folder of snapshots belongs to another study.
    assert read_trial_run(study, trial_of(study, 0))[0].snapshots == {}
    assert read_trial_run(study, trial_of(study, 0), tmp_path / "nowhere")[0].snapshots == {}


@pytest.mark.slow
def test_a_pruned_trial_is_repeated_to_where_it_was_pruned(database: Database) -> None:
    pruning = Pruning(rule="threshold", min_epochs=20, options={"lower": 1.5})
    experiment = LONGER.model_copy(update={"epochs": 10**6})
    study = create_study(
        database, "study", make_spec(experiment=experiment, space={"dropout": (0.1,)}, pruning=pruning)
    )
    Worker(study, 1).run(threading.Event())
    trial = find_finished_trial(study, 0)
    assert trial.state == TrialState.PRUNED
    read, problems = read_trial_run(study, trial)
    assert problems == [] and read.weights is None and read.record is not None and read.metrics is not None
    assert read.last_epoch == read.record.epoch[-1] < 10**6
    again = run.train(read.experiment, read.hyperparameters, until=read.last_epoch)
    assert again.metrics == read.metrics


def test_trials_that_have_not_ended(database: Database) -> None:
    study = create_study(database, "study", make_spec())
    claim(study)
    with pytest.raises(
        MiiiiSearchError, match=r"^trial 0 of study `study` is running; only trials that have ended .* status"
    ):
        find_finished_trial(study, 0)
    with pytest.raises(MiiiiSearchError, match=r"^trial 23 of study `study` is waiting"):
        find_finished_trial(study, 23)
    with pytest.raises(MiiiiSearchError, match=r"^study `study` has no trial 24; its trials are 0 to 23$"):
        find_finished_trial(study, 24)
    sampled = make_spec(sampler="tpe", budget={"trials": 3})
    with pytest.raises(MiiiiSearchError, match=r"has no trial 0; it has none yet"):
        find_finished_trial(create_study(database, "empty", sampled), 0)


def test_a_failed_trial(database: Database) -> None:
    study = create_study(database, "study", make_spec())
    end(study, claim(study), TrialState.FAIL, None, metrics=None)
    trial = find_finished_trial(study, 0)
    trial.user_attrs.pop("metrics")
    read, problems = read_trial_run(study, trial)
    assert problems == [] and (read.metrics, read.record, read.weights) == (None, None, None)
    assert len(analyze(read).missing) == 3


def test_what_a_visitor_removed_is_not_there(database: Database) -> None:
    """The dashboard leaves `null` in place of a removed artifact."""
    study = ended(database)
    with database.transaction() as connection:
        key = "artifacts:00000000-0000-4000-8000-000000000000"
        row = {"trial_id": trial_of(study, 0)._trial_id, "key": key, "value_json": '"null"'}
        connection.execute(schema.trial_system_attributes.insert(), [row])
    assert read_trial_run(study, find_finished_trial(study, 0))[1] == []


@pytest.fixture(params=["database", "folder"])
def study(database: Database, request: pytest.FixtureRequest, tmp_path: Path) -> Study:
    """Two ended trials; artifacts lie in the database, or in a folder."""
    if request.param == "database":
        return ended(database)
    (tmp_path / "shared").mkdir()
    place = (tmp_path / "shared").as_uri()
    prepare_store(place)
    return ended(database, place=place)


def kept(study: Study) -> int:
    """Return the number of artifacts in the database or in the folder."""
    inside = len(everything(study.database)["miiii_artifacts"])
    return (
        inside
        if study.artifact_store_url is None
        else inside
        + sum(path.name != MARKER for path in Path(study.artifact_store_url.removeprefix("file://")).iterdir())
    )


def test_files_are_attached_to_an_ended_trial(study: Study, start: Serve) -> None:  # noqa: F811
    before = trial_of(study, 0)
    attach_artifacts(study, before, FILES)
    attach_artifacts(study, trial_of(study, 1), OTHERS)
    assert on_page(study, 0) == as_dict(FILES) and on_page(study, 1) == as_dict(OTHERS)
    assert trial_of(study, 0) == before  # nothing of the trial itself has changed
    call = start(study.database.optuna, CombinedArtifactStore(study.database))
    shown = call(f"/api/studies/{study.study_id}").json["trials"][0]["artifacts"]
    assert {meta["filename"]: meta["mimetype"] for meta in shown} == {
        "report.html": "text/html",
        "accuracy.png": "image/png",
    }
    [picture] = [meta["artifact_id"] for meta in shown if meta["filename"] == "accuracy.png"]
    answer = call(f"/artifacts/{study.study_id}/{before._trial_id}/{picture}")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "image/png", FILES[1].data)


def test_attaching_again_replaces(study: Study) -> None:
    attach_artifacts(study, trial_of(study, 0), FILES)
    attach_artifacts(study, trial_of(study, 1), OTHERS)
    for files in (OTHERS, FILES, OTHERS):
        attach_artifacts(study, trial_of(study, 0), files)
        assert on_page(study, 0) == as_dict(files)
        assert kept(study) == len(files) + 1
    assert on_page(study, 1) == as_dict(OTHERS)


def test_what_a_trial_brought_along_stays(database: Database) -> None:
    study = create_study(database, "study", make_spec())
    with_own_files(study)
    for files in (FILES, OTHERS):
        attach_artifacts(study, trial_of(study, 0), files)
        assert on_page(study, 0).keys() == {"record.npz", "curves.png"} | as_dict(files).keys()
    assert read_trial_run(study, trial_of(study, 0))[0].record is not None


def test_tidying_takes_along_what_was_attached(study: Study) -> None:
    """Also from trials without other artifacts, but not from trials whose artifacts are kept."""
    other = ended(study.database, "other")
    for of in (study, other):
        attach_artifacts(of, trial_of(of, 0), OTHERS)
        attach_artifacts(of, trial_of(of, 1), FILES)
    size = sum(len(file.data) for file in FILES) if study.artifact_store_url is None else 0
    before = everything(study.database)
    assert cleanup(study, 1, dry_run=True) == CleanupResult(trials=1, artifacts=2, size=size)
    assert everything(study.database) == before
    assert cleanup(study, 1) == CleanupResult(trials=1, artifacts=2, size=size)
    assert cleanup(study, 1) == CleanupResult(0, 0, 0)
    assert on_page(study, 0) == as_dict(OTHERS) and on_page(study, 1) == {}
    assert on_page(other, 1) == as_dict(FILES)
    assert kept(study) == 4  # one of this study, three of the other


def test_deleting_takes_along_what_was_attached(study: Study) -> None:
    attach_artifacts(study, trial_of(study, 0), FILES)
    assert read_contents(study).artifacts == (2 if study.artifact_store_url is None else 0)
    delete(study)
    assert kept(study) == 0


def test_an_archive_takes_along_what_was_attached(study: Study, tmp_path: Path) -> None:
    """To other ids of trials and, beside the first one, of artifacts."""
    attach_artifacts(study, trial_of(study, 0), OTHERS)
    attach_artifacts(study, trial_of(study, 1), FILES)
    export_study(study, tmp_path / "study.zip")
    copy = import_study(study.database, tmp_path / "study.zip", "copy")
    assert trial_of(copy, 0)._trial_id != trial_of(study, 0)._trial_id
    for of in (study, copy):
        assert on_page(of, 0) == as_dict(OTHERS) and on_page(of, 1) == as_dict(FILES)
    # They are two: what is attached to one, and removed from it, is nothing to the other.
    attach_artifacts(copy, trial_of(copy, 0), FILES)
    cleanup(copy, 0)
    assert on_page(copy, 0) == {} and on_page(study, 0) == as_dict(OTHERS)
    assert on_page(study, 1) == as_dict(FILES)


def test_a_study_that_is_deleted_meanwhile(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one message and nothing is left behind, even if another study has got its id."""
    trial, opened = trial_of(study, 0), open_study(study.database, study.name)
    upload = trial_runs._upload

    def upload_and_lose(*arguments: object) -> None:
        upload(*arguments)  # type: ignore[arg-type]
        delete(opened)

    monkeypatch.setattr(trial_runs, "_upload", upload_and_lose)
    with pytest.raises(MiiiiSearchError, match="study `study` was deleted"):
        attach_artifacts(study, trial, FILES)
    assert kept(study) == 0
    monkeypatch.setattr(trial_runs, "_upload", upload)
    ended(study.database, place=study.artifact_store_url)
    with pytest.raises(MiiiiSearchError, match="study `study` was deleted"):
        attach_artifacts(study, trial, FILES)
    assert kept(study) == 0


def test_a_place_that_is_down(database: Database, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    study = ended(database, place=(tmp_path / "shared").as_uri())
    (tmp_path / "shared").rename(tmp_path / "away")
    with pytest.raises(MiiiiSearchError, match=r"^cannot keep figures in file:///.*: No such file or directory$"):
        attach_artifacts(study, trial_of(study, 0), FILES)
    (tmp_path / "away").rename(tmp_path / "shared")
    assert on_page(study, 0) == {} and kept(study) == 0


def test_a_place_that_goes_down_halfway(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_store((tmp_path / "shared").as_uri())
    study = ended(database, place=(tmp_path / "shared").as_uri())
    call, written = artifact_stores.RemoteArtifactStore._call, [0]

    def full(self: artifact_stores.RemoteArtifactStore, artifact_id: str, action: object) -> object:
        written[0] += 1
        if written[0] == 2:
            raise ArtifactStoreUnavailableError("No space left on device")
        return call(self, artifact_id, action)  # type: ignore[arg-type]

    monkeypatch.setattr(artifact_stores.RemoteArtifactStore, "_call", full)
    with pytest.raises(MiiiiSearchError, match="No space left on device"):
        attach_artifacts(study, trial_of(study, 0), FILES)
    assert written[0] > 2 and kept(study) == 0


def test_a_file_that_is_too_large_for_a_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    study = ended(database)
    monkeypatch.setattr(trial_runs, "MAX_ARTIFACT_BYTES", 2**20)
    with pytest.raises(
        MiiiiSearchError, match=r"^report.html has 2 MiB, but an artifact in a database has at most 1 MiB$"
    ):
        attach_artifacts(study, trial_of(study, 0), [FILES[1], Artifact("report.html", bytes(2**21))])
    assert on_page(study, 0) == {} and kept(study) == 0


def test_artifacts_that_are_gone(database: Database) -> None:
    """The record of a trial that was cleaned up is missing, without other consequences."""
    study = create_study(database, "study", make_spec())
    with_own_files(study)
    assert read_trial_run(study, trial_of(study, 0))[0].record is not None
    for meta in get_all_artifact_meta(read_back(study).trials[0], storage=database.optuna):
        CombinedArtifactStore(database).remove(meta.artifact_id)
        with pytest.raises(ArtifactNotFound):
            CombinedArtifactStore(database).open_reader(meta.artifact_id)
    read, problems = read_trial_run(study, trial_of(study, 0))
    assert problems == [] and read.record is None and read.metrics is not None
    cleanup(study, 0)
    assert read_trial_run(study, trial_of(study, 0))[1] == []
