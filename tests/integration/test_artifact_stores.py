"""Artifacts outside of the database: in a folder, and on an S3 server that is a process of its own."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import artifacts
from miiii_search.storage.artifact_stores import (
    MARKER,
    ArtifactStoreUnavailableError,
    RemoteArtifactStore,
    parse_store_url,
    prepare_store,
)
from miiii_search.storage.combined_artifact_store import CombinedArtifactStore
from miiii_search.storage.database import open_database
from miiii_search.study.archive_export import export_study
from miiii_search.study.cleanup import cleanup
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete
from miiii_search.study.open import open_study
from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes, read_trials, wait_for
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from tests.support import claim, everything, make_spec

SECRET = "s3cret-of-the-bucket"
CREATE = ("create", "--study", "s", "--preset", "demo", *TINY, "--trials", "1")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the environment with which boto3 reaches an S3 server that has the bucket `bucket`."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as file:
        command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        url = wait_for(lambda: re.search(r"Running on (http://\S+)", log.read_text()))[1]
        environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket="bucket")
            yield environment
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["folder", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, s3: dict[str, str]) -> str:
    return f"{tmp_path}/shared" if request.param == "folder" else f"s3://bucket/{uuid.uuid4()}"


def objects(store_url: str) -> list[str]:
    """Return the names of the artifacts in a store."""
    if store_url.startswith("/"):
        return [name for name in os.listdir(store_url) if name != MARKER]
    prefix = store_url.removeprefix("s3://bucket/")
    listed = boto3.client("s3").list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    return [name for entry in listed if (name := entry["Key"].removeprefix(f"{prefix}/")) != MARKER]


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url), timeout=600) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def links(trial: Any) -> list[dict[str, str]]:
    return [json.loads(value) for key, value in trial.system_attrs.items() if key.startswith("artifacts:")]


@pytest.mark.parametrize(("storage_url", "store_url"), [("sqlite", "folder"), ("postgresql", "s3")], indirect=True)
def test_a_worker_stores_where_the_study_says(processes: Processes, storage_url: str, store_url: str) -> None:
    """A worker gets nothing but the storage's URL; the dashboard shows the artifacts of this study and of another."""
    said = processes.run(*CREATE, "--artifacts", store_url, storage=storage_url)
    said += processes.run(*("create", "--study", "inside", *CREATE[3:]), storage=storage_url)
    said += processes.run("work", "--study", "s", "--lanes", "1", storage=storage_url)
    said += processes.run("work", "--study", "inside", "--lanes", "1", storage=storage_url)
    [outside], [inside] = read_trials(storage_url, "s"), read_trials(storage_url, "inside")
    assert sorted(link["filename"] for link in links(outside)) == [
        "learning-curves.png",
        "record.npz",
        "weights.safetensors",
    ]
    assert sorted(objects(store_url)) == sorted(link["artifact_id"] for link in links(outside))
    assert not {link["artifact_id"] for link in links(inside)} & set(objects(store_url))
    assert "validation" in processes.run("best", "--study", "s", storage=storage_url)
    page = processes.start("dashboard", "--port", "0", storage=storage_url)
    address = wait_for(lambda: re.search(r"dashboard: (http://\S+)/", processes.log(page)))[1]
    for study, trial in enumerate([outside, inside], 1):
        for link in links(trial):
            status, body = get(f"{address}/artifacts/{study}/{trial._trial_id}/{link['artifact_id']}")
            begins = {".png": b"\x89PNG", ".npz": b"PK"}.get(Path(link["filename"]).suffix, b"")
            assert status == 200 and body.startswith(begins) and len(body) > 1000
    rows = repr([outside.system_attrs, outside.user_attrs]) + said + processes.log(page)
    assert SECRET not in rows


@pytest.mark.parametrize(("storage_url", "store_url"), [("sqlite", "folder"), ("postgresql", "s3")], indirect=True)
def test_a_store_that_is_down_costs_no_result(processes: Processes, storage_url: str, store_url: str) -> None:
    """The trial ends with its result, its note says what is missing, and no link points to a missing artifact."""
    processes.run(*CREATE, "--artifacts", store_url, storage=storage_url)
    if store_url.startswith("/"):
        shutil.rmtree(store_url)  # as if nothing were mounted
    else:
        processes.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
    said = processes.run("work", "--study", "s", "--lanes", "1", storage=storage_url)
    assert "Its artifacts could not be stored" in said
    [trial] = read_trials(storage_url, "s")
    assert trial.state == TrialState.COMPLETE and links(trial) == []
    assert "could not be stored" in trial.user_attrs["artifacts"]
    assert not store_url.startswith("/") or not Path(store_url).exists()


def test_the_dashboard_tells_down_from_missing(processes: Processes, tmp_path: Path, s3: dict[str, str]) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run(*CREATE, "--artifacts", "s3://bucket/down", storage=storage)
    processes.run("work", "--study", "s", "--lanes", "1", storage=storage)
    [trial] = read_trials(storage, "s")
    artifact = links(trial)[0]["artifact_id"]
    path = f"/artifacts/1/{trial._trial_id}/{artifact}"
    processes.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
    down = processes.start("dashboard", "--port", "0", storage=storage)
    address = wait_for(lambda: re.search(r"dashboard: (http://\S+)/", processes.log(down)))[1]
    status, body = get(address + path)
    assert status == 503 and b"does not answer" in body
    del processes.environment["AWS_ENDPOINT_URL"]
    boto3.client("s3").delete_object(Bucket="bucket", Key=f"down/{artifact}")
    page = processes.start("dashboard", "--port", "0", storage=storage)
    address = wait_for(lambda: re.search(r"dashboard: (http://\S+)/", processes.log(page)))[1]
    assert get(address + path)[0] == 404


def test_no_name_leaves_its_folder(tmp_path: Path, s3: dict[str, str]) -> None:
    """Neither a path nor a name of another form is looked up, although the file exists."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "passwd").write_text("secret")
    database = open_database(f"sqlite:///{tmp_path}/study.db", create=True)
    create_study(database, "s", make_spec(), parse_store_url(str(folder)))
    for store in (
        RemoteArtifactStore(folder.as_uri()),
        RemoteArtifactStore("s3://bucket"),
        CombinedArtifactStore(database),
    ):
        for name in ("../secret", str(tmp_path / "secret"), "passwd", "", ".", f"../{uuid.uuid4()}"):
            with pytest.raises(ArtifactNotFound):
                store.open_reader(name)
            with pytest.raises(ArtifactNotFound):
                store.remove(name)
    with pytest.raises(ArtifactNotFound):
        RemoteArtifactStore(folder.as_uri()).write("../out", io.BytesIO(b""))
    assert not (tmp_path / "out").exists()
    database.close()


def test_a_stored_artifact_can_be_removed(tmp_path: Path, store_url: str) -> None:
    prepare_store(parse_store_url(store_url))
    assert objects(store_url) == []
    database = open_database(f"sqlite:///{tmp_path}/study.db", create=True)
    create_study(database, "s", make_spec(), parse_store_url(store_url))
    name = str(uuid.uuid4())
    RemoteArtifactStore(parse_store_url(store_url)).write(name, io.BytesIO(b"bytes"))
    everywhere = CombinedArtifactStore(database)
    with everywhere.open_reader(name) as reader:
        assert reader.read() == b"bytes"
    everywhere.remove(name)
    assert objects(store_url) == []
    for use in (everywhere.open_reader, everywhere.remove):
        with pytest.raises(ArtifactNotFound):
            use(name)
    database.close()


@pytest.mark.parametrize(
    ("text", "store_url"),
    [
        ("/shared/a b", "file:///shared/a%20b"),
        ("file:///shared/x/", "file:///shared/x"),
        ("/shared/../x", "file:///x"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ],
)
def test_a_store_url_has_one_spelling(text: str, store_url: str) -> None:
    assert parse_store_url(text) == store_url == parse_store_url(store_url)


@pytest.mark.parametrize(
    "text",
    [
        "shared",
        "file://host/x",
        "s3://",
        "s3://key:secret@bucket/x",
        "s3://bucket?x=1",
        "http://x/y",
        "s3://[",
        "gs://b",
    ],
)
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(MiiiiSearchError, match="the artifact store") as refused:
        parse_store_url(text)
    assert "secret" not in str(refused.value)


def test_a_store_that_cannot_be_written_is_refused_at_once(tmp_path: Path, s3: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    for store_url in (f"{tmp_path}/file/x", "s3://no-such-bucket/x"):
        with pytest.raises(MiiiiSearchError, match="cannot keep artifacts in"):
            prepare_store(parse_store_url(store_url))
    with pytest.raises(ArtifactStoreUnavailableError):
        RemoteArtifactStore("s3://no-such-bucket").write(str(uuid.uuid4()), io.BytesIO(b""))


def test_a_study_keeps_its_store(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run(*CREATE, "--artifacts", f"{tmp_path}/a", storage=storage)
    processes.run(*CREATE, "--artifacts", f"{tmp_path}/a/", storage=storage)
    processes.run(*CREATE, storage=storage)  # keeps its store
    refused = processes.start(*CREATE, "--artifacts", f"{tmp_path}/b", storage=storage)
    assert refused.wait(LIMIT_SECONDS) == 2 and "leave --artifacts out" in processes.log(refused)
    assert not (tmp_path / "b").exists()


def test_without_boto3_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MiiiiSearchError, match=r"pip install 'miiii-search\[s3\]'"):
        prepare_store("s3://other-bucket/without")


def test_exported_cleaned_up_and_deleted(processes: Processes, store_url: str, tmp_path: Path) -> None:
    """An export contains the bytes, an import stores them in its database; cleanup and delete empty the store."""
    storage, copy = f"sqlite:///{tmp_path}/study.db", f"sqlite:///{tmp_path}/copy.db"
    processes.run(*CREATE, "--trials", "2", "--artifacts", store_url, storage=storage)
    processes.run("work", "--study", "s", storage=storage)
    before = {
        name: RemoteArtifactStore(parse_store_url(store_url)).open_reader(name).read() for name in objects(store_url)
    }
    assert len(before) >= 4
    processes.run("export-study", "study.zip", storage=storage)
    processes.run("cleanup", "--keep-records", "1", "--yes", storage=storage)
    kept = objects(store_url)
    assert 0 < len(kept) < len(before)
    processes.run("delete", "--study", "s", "--yes", storage=storage)
    assert objects(store_url) == []
    processes.run("import-study", "study.zip", storage=copy)
    database = open_database(copy)
    try:
        assert {name: CombinedArtifactStore(database).open_reader(name).read() for name in before} == before
        assert open_study(database, "s").artifact_store_url is None
    finally:
        database.close()


@pytest.mark.parametrize("empty", [False, True], ids=["no folder", "an empty mount point"])
def test_a_folder_that_is_not_mounted_is_no_absence(tmp_path: Path, empty: bool) -> None:
    """Until the folder is back, nothing is exported without its artifacts, and no link to them is deleted."""
    folder, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    database = open_database(f"sqlite:///{tmp_path}/study.db", create=True)
    store_url = parse_store_url(str(folder))
    prepare_store(store_url)
    study = create_study(database, "s", make_spec(), store_url)
    lease, name = claim(study), str(uuid.uuid4())
    RemoteArtifactStore(store_url).write(name, io.BytesIO(b"bytes"))
    result = TrialResult(
        TrialState.COMPLETE, 0.5, "ended.", {}, [], links=dict([artifacts.artifact_link(name, "record.npz")])
    )
    assert study.queue.finish(Heartbeat(lease, 1, 1.0), result) == FinishStatus.WRITTEN
    before = everything(database)
    folder.rename(elsewhere)
    if empty:
        folder.mkdir()
    for act in (
        lambda: export_study(study, tmp_path / "study.zip"),
        lambda: cleanup(study, 0),
        lambda: delete(study),
    ):
        with pytest.raises(MiiiiSearchError, match=r"from|in file:///.*: "):
            act()
    for use in (
        CombinedArtifactStore(database).open_reader,
        RemoteArtifactStore(store_url).open_reader,
        RemoteArtifactStore(store_url).remove,
    ):
        with pytest.raises(ArtifactStoreUnavailableError):
            use(name)
    with pytest.raises(ArtifactStoreUnavailableError):
        RemoteArtifactStore(store_url).write(str(uuid.uuid4()), io.BytesIO(b""))
    assert everything(database) == before
    if empty:
        folder.rmdir()
    elsewhere.rename(folder)
    assert export_study(study, tmp_path / "study.zip").missing == ()
    RemoteArtifactStore(store_url).remove(name)  # the export lists a single missing file and writes the rest
    assert export_study(study, tmp_path / "study.zip").missing == (name,)
    delete(study)
    assert os.listdir(folder) == [MARKER]
    database.close()
