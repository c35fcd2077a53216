"""Exporting a study and importing it again keeps everything, between databases of any kind."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna_dashboard
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.study_sections import Pruning
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import artifacts, study_attrs, study_reader
from miiii_search.storage.artifacts import DatabaseArtifactStore
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.study_attrs import CREATED_KEY, PAUSED_KEY, STARTED_KEY
from miiii_search.storage.usage import read_usage
from miiii_search.study.archive_export import export_study
from miiii_search.study.archive_import import import_study
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.study.pause import pause, resume
from miiii_search.study.study import Study
from miiii_search.testing.failpoints import Failpoints
from miiii_search.worker import study_watch
from miiii_search.worker.options import CheckpointPolicy
from tests.dashboard.test_app import Serve, start  # noqa: F401
from tests.study.test_pause import LONG, TWO, hashes
from tests.support import end, everything, make_spec, read_back, wait_until, with_all
from tests.worker.test_worker import note_of, work, working

BUDGET = {"device_hours": 1.0, "wall_hours": 5.0}


@pytest.fixture
def elsewhere(storage_url: str) -> Iterator[Database]:
    opened = open_database(storage_url, create=True)
    yield opened
    opened.close()


def public(trial: FrozenTrial) -> dict[str, Any]:
    """Return everything that Optuna reports about a trial except its id. A running trial counts as waiting."""
    state = TrialState.WAITING if trial.state == TrialState.RUNNING else trial.state
    told = {name: getattr(trial, name) for name in ("number", "params", "distributions", "user_attrs", "system_attrs")}
    times = (trial.datetime_start, trial.datetime_complete)
    return told | {"state": state, "values": trial.values, "times": times, "reports": repr(trial.intermediate_values)}


def files_of(study: Study) -> dict[tuple[int, str], bytes]:
    store, found = DatabaseArtifactStore(study.database), {}
    for trial in read_back(study).trials:
        for meta in get_all_artifact_meta(trial, storage=study.database.optuna):
            found[trial.number, meta.filename] = store.open_reader(meta.artifact_id).read()
    return found


def late_artifact(study: Study) -> tuple[int, str]:
    """Return the trial's number and the artifact's id of the artifact that was attached to a finished trial."""
    system = study.database.optuna.get_study_system_attrs(study.study_id)
    [key] = [key for key in system if key.startswith("dashboard:artifacts:")]
    _, _, trial_id, artifact_id = key.split(":")
    [number] = [t.number for t in read_back(study).trials if t._trial_id == int(trial_id)]
    assert json.loads(system[key])["artifact_id"] == artifact_id
    return number, artifact_id


def test_every_field_comes_back(database: Database, elsewhere: Database, tmp_path: Path) -> None:
    """The study is exported from each kind of database into each kind, and back again."""
    create_study(elsewhere, "other", make_spec())  # so that ids differ
    study = create_study(database, "study", make_spec(budget=BUDGET))
    with_all(study)
    attributes_before = database.optuna.get_study_system_attrs(study.study_id)
    exported = export_study(study, tmp_path / "study.zip")
    assert (exported.size, exported.missing) == ((tmp_path / "study.zip").stat().st_size, ())
    there = import_study(elsewhere, tmp_path / "study.zip", None)
    export_study(there, tmp_path / "again.zip")
    back = import_study(database, tmp_path / "again.zip", "back")

    for copy in (there, back):
        assert copy.spec == study.spec and copy.version == study.version
        assert read_back(copy).directions == read_back(study).directions
        assert read_back(copy).user_attrs == read_back(study).user_attrs
        trials, copied = read_back(study).trials, read_back(copy).trials
        if copy is there:
            assert [public(t) for t in copied] == [public(t) for t in trials]
        assert files_of(copy) == files_of(study) and len(files_of(copy)) == 2
        assert [note_of(copy, t) for t in copied[:3]] == [note_of(study, t) for t in trials[:3]]
        assert "note 0" in note_of(copy, copied[0])
        assert optuna_dashboard.get_note(read_back(copy)) == optuna_dashboard.get_note(read_back(study))
        assert late_artifact(copy)[0] == late_artifact(study)[0]
        late = DatabaseArtifactStore(copy.database).open_reader(late_artifact(copy)[1])
        assert late.read() == b"a,b" * 500
        assert copy.counts()[TrialState.RUNNING] == 0 and copied[3].state == TrialState.WAITING
        assert copy.queue.checkpoint_epochs([t._trial_id for t in copied]) == {copied[3]._trial_id: 16}
        with copy.database.engine.connect() as connection:
            used = read_usage(connection, copy.study_id)
        with database.engine.connect() as connection:
            before = read_usage(connection, study.study_id)
        assert used.device_seconds == before.device_seconds > 0
        assert used.wall_seconds <= before.wall_seconds
    assert database.optuna.get_study_system_attrs(study.study_id) == attributes_before


def test_it_is_of_one_moment(
    database: Database, elsewhere: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export shows one moment, although a worker finishes a trial and removes its checkpoint meanwhile."""
    study = create_study(database, "study", make_spec(budget=BUDGET))
    [running] = with_all(study)
    linked = artifacts.linked_artifact_ids

    def linked_late(*arguments: Any) -> list[str]:
        end(study, running)
        return linked(*arguments)

    monkeypatch.setattr(study_reader, "linked_artifact_ids", linked_late)
    export_study(study, tmp_path / "study.zip")
    assert read_back(study).trials[running.number].state == TrialState.COMPLETE
    copy = import_study(elsewhere, tmp_path / "study.zip", None)
    copied = read_back(copy).trials[running.number]
    assert copied.state == TrialState.WAITING
    assert copy.queue.checkpoint_epochs([copied._trial_id]) == {copied._trial_id: 16}


def test_the_dashboard_serves_the_copy(
    database: Database,
    elsewhere: Database,
    tmp_path: Path,
    start: Serve,  # noqa: F811
) -> None:
    study = create_study(database, "study", make_spec(budget=BUDGET))
    with_all(study)
    export_study(study, tmp_path / "study.zip")
    create_study(elsewhere, "other", make_spec())
    copy = import_study(elsewhere, tmp_path / "study.zip", "copy")
    get = start(elsewhere.optuna, DatabaseArtifactStore(elsewhere))
    trials = read_back(copy).trials
    for trial in trials[:2]:
        [meta] = get_all_artifact_meta(trial, storage=elsewhere.optuna)
        answer = get(f"/artifacts/{copy.study_id}/{trial._trial_id}/{meta.artifact_id}")
        assert (answer.status, answer.body) == (200, bytes([trial.number]) * 1000)
    number, artifact_id = late_artifact(copy)
    answer = get(f"/artifacts/{copy.study_id}/{trials[number]._trial_id}/{artifact_id}")
    assert (answer.status, answer.body) == (200, b"a,b" * 500)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shared_database", "storage_url"), [("sqlite", "postgresql"), ("postgresql", "sqlite")], indirect=True
)
def test_a_worker_goes_on_where_it_was(
    database: Database,
    elsewhere: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failpoints_here: Failpoints,
) -> None:
    """The checkpoint is exported too, so the weights are the same as without an export."""
    monkeypatch.setattr(study_watch, "REFRESH_SECONDS", 0.2)
    spec = make_spec(experiment=LONG, space=TWO, pruning=Pruning(rule="none"))
    study = create_study(database, "study", spec)
    failpoints_here.arm("chunk")
    with working(open_study(database, "study"), 2, checkpoints=CheckpointPolicy(tmp_path / "here")) as (_, said):
        failpoints_here.wait("chunk")
        pause(study)
        wait_until(lambda: any("is paused" in line for line in said))
        failpoints_here.release("chunk")
        wait_until(lambda: not study.counts()[TrialState.RUNNING], 240)
    export_study(study, tmp_path / "study.zip")
    copy = import_study(elsewhere, tmp_path / "study.zip", None)
    assert copy.paused
    resume(copy)
    with working(open_study(elsewhere, "study"), 2, checkpoints=CheckpointPolicy(tmp_path / "there")) as (_, said):
        wait_until(copy.is_done, 240)
    assert any("starts from epoch" in line for line in said)
    unbroken = create_study(elsewhere, "unbroken", spec)
    work(unbroken)
    assert hashes(copy) == hashes(unbroken)


def test_a_name_that_is_taken(database: Database, tmp_path: Path) -> None:
    study = create_study(database, "study", make_spec(budget=BUDGET))
    with_all(study)
    export_study(study, tmp_path / "study.zip")
    before = everything(database)
    with pytest.raises(MiiiiSearchError, match="--study"):
        import_study(database, tmp_path / "study.zip", None)
    assert everything(database) == before
    copy = import_study(database, tmp_path / "study.zip", "copy")
    assert files_of(copy) == files_of(study)
    assert not {id_of(t) for t in read_back(copy).trials} & {id_of(t) for t in read_back(study).trials}


def id_of(trial: FrozenTrial) -> int:
    return trial._trial_id


def test_time_stands_in_the_file(database: Database, elsewhere: Database, tmp_path: Path) -> None:
    study = create_study(database, "study", make_spec(budget={"wall_hours": 1.0}))
    with_all(study)
    with database.transaction() as connection:
        started = study_attrs.read(connection, study.study_id, STARTED_KEY)[STARTED_KEY] - 1800
        study_attrs.write(connection, study.study_id, {STARTED_KEY: started})
    pause(study)
    path = tmp_path / "study.zip"
    export_study(study, path)
    rewrite(path, "study.json", lambda data: with_tree(data, lambda tree: aged(tree, 10_000)))
    copy = import_study(elsewhere, path, None)
    with elsewhere.engine.connect() as connection:
        assert read_usage(connection, copy.study_id).wall_seconds == pytest.approx(1800, abs=60)


def aged(tree: dict[str, Any], seconds: float) -> None:
    tree["exported_at"] -= seconds
    for row in tree["study"]["study_system_attributes"]:
        if row["key"] in (STARTED_KEY, PAUSED_KEY):
            row["value_json"] = json.dumps(json.loads(row["value_json"]) - seconds)


def attribute(tree: dict[str, Any], key: str, value: Any) -> None:
    [row] = [row for row in tree["study"]["study_system_attributes"] if row["key"] == key]
    row["value_json"] = json.dumps(value)


def with_tree(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    tree = json.loads(data)
    change(tree)
    return json.dumps(tree).encode()


def rewrite(path: Path, name: str, change: Callable[[bytes], bytes], *, with_checksum: bool = True) -> None:
    """Change one member of an archive, and its checksum in the manifest unless told otherwise."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members[name] = change(members[name])
    if with_checksum and name != "manifest.json":
        manifest = json.loads(members["manifest.json"])
        known = {"size": len(members[name]), "sha256": hashlib.sha256(members[name]).hexdigest()}
        manifest["members"][name] = known
        members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for n, data in members.items():
            archive.writestr(n, data)


def set_in(*keys: Any) -> Callable[[bytes], bytes]:
    """Return a change that sets the value at a path of keys; the last argument is the value."""
    *path, leaf, value = keys

    def change(tree: dict[str, Any]) -> None:
        node: Any = tree
        for key in path:
            node = node[key]
        node[leaf] = value

    return lambda data: with_tree(data, change)


@pytest.mark.parametrize(
    ("name", "change", "with_checksum"),
    [
        ("files/0", lambda data: data + b"x", False),
        ("study.json", lambda data: data[:-10], True),
        ("manifest.json", set_in("format", 2), True),
        ("manifest.json", lambda _: b"[]", True),
        ("study.json", set_in("trials", []), True),
        ("study.json", set_in("trials", 0, "state", "GONE"), True),
        ("study.json", set_in("trials", 0, "number", 7), True),
        ("study.json", set_in("trials", 0, "datetime_complete", "yesterday"), True),
        ("study.json", set_in("of_trials", "trial_params", 0, "trial_id", 10**6), True),
        ("study.json", set_in("of_trials", "trial_params", 0, "param_value", "1; DROP TABLE trials"), True),
        ("study.json", set_in("of_trials", "trial_params", 0, "distribution_json", "{}"), True),
        ("study.json", set_in("of_trials", "trial_user_attributes", 0, "value_json", "no json"), True),
        ("study.json", set_in("artifacts", 0, "file", "../../etc/passwd"), True),
        ("study.json", set_in("artifacts", 0, "artifact_id", "../x"), True),
        ("study.json", set_in("study", "study_system_attributes", []), True),
        ("study.json", set_in("checkpoints", [{"trial_id": 1}]), True),
        ("study.json", set_in("checkpoints", 0, "epoch", 10**30), True),
        ("study.json", set_in("of_trials", "trial_intermediate_values", 0, "step", 10**30), True),
        ("study.json", lambda data: with_tree(data, lambda tree: attribute(tree, CREATED_KEY, "long ago")), True),
        ("study.json", lambda data: with_tree(data, lambda tree: attribute(tree, CREATED_KEY, 1e30)), True),
    ],
    ids=[
        *("bytes", "truncated", "format", "list", "no-trials", "state", "number", "time", "stranger", "sql"),
        *("distribution", "no-json", "path", "artifact-id", "no-spec", "checkpoint", "epoch", "step"),
        *("created", "created-when"),
    ],
)
def test_a_damaged_or_forged_file_leaves_nothing(
    database: Database, tmp_path: Path, name: str, change: Callable[[bytes], bytes], with_checksum: bool
) -> None:
    study = create_study(database, "study", make_spec(budget=BUDGET))
    with_all(study)
    path = tmp_path / "study.zip"
    export_study(study, path)
    rewrite(path, name, change, with_checksum=with_checksum)
    before = everything(database)
    with pytest.raises(MiiiiSearchError, match="nothing was imported") as refused:
        import_study(database, path, "copy")
    assert "\n" not in str(refused.value)
    assert everything(database) == before


def test_what_is_no_archive(database: Database, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(MiiiiSearchError, match="damaged, or not a file of export-study"):
        import_study(database, tmp_path / "text.zip", None)
    with pytest.raises(MiiiiSearchError, match="cannot read"):
        import_study(database, tmp_path / "none.zip", None)
    study = create_study(database, "study", make_spec())
    for path in (tmp_path / "nowhere" / "study.zip", Path("/"), tmp_path):
        with pytest.raises(MiiiiSearchError, match="cannot write"):
            export_study(study, path)
    assert sorted(path.name for path in tmp_path.parent.iterdir() if path.name.endswith(".tmp")) == []


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J", "\x9b2J", "\u202e", "x" * 201])
def test_a_name_that_is_none(database: Database, tmp_path: Path, name: str) -> None:
    """A bad name is refused, whether it comes from the file or from the caller. Terminals show names."""
    study = create_study(database, "study", make_spec())
    path = tmp_path / "study.zip"
    export_study(study, path)
    with pytest.raises(MiiiiSearchError, match="a study's name must"):
        import_study(database, path, name)
    with pytest.raises(MiiiiSearchError, match="a study's name must"):
        create_study(database, name, make_spec())
    rewrite(path, "study.json", set_in("name", name))
    with pytest.raises(MiiiiSearchError, match="a study's name must") as refused:
        import_study(database, path, None)
    assert str(refused.value).isprintable()


def test_no_more_is_read_than_the_limit(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = create_study(database, "study", make_spec(budget=BUDGET))
    with_all(study)
    export_study(study, tmp_path / "study.zip")
    monkeypatch.setattr("miiii_search.study.archive.MAX_JSON_BYTES", 1000)
    with pytest.raises(MiiiiSearchError, match="more than 1,000 bytes"):
        import_study(database, tmp_path / "study.zip", "copy")
