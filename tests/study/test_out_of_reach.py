"""Studies of a newer version, and studies whose artifact store does not answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from miiii_search.config.overrides import to_tree
from miiii_search.config.study_spec import FORMAT
from miiii_search.errors import MiiiiSearchError, VersionMismatchError
from miiii_search.storage.artifact_stores import RemoteArtifactStore, parse_store_url
from miiii_search.storage.artifacts import artifact_link
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.study_attrs import SPEC_KEY
from miiii_search.study.archive_export import export_study
from miiii_search.study.archive_import import import_study
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete
from miiii_search.study.open import open_study
from miiii_search.study.stored_spec import parse_spec, upgrade_stored_spec
from miiii_search.study.study import Study
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import FinishStatus
from tests.support import claim, make_spec
from tests.trial_queue.test_contract import ended


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/test.db", create=True)
    yield opened
    opened.close()


def write_spec_tree(study: Study, **changed: object) -> None:
    """Store a spec that has these entries besides its own."""
    with study.store.transaction() as tx:
        tx.lock()
        tx.write_attributes({SPEC_KEY: {**to_tree(study.spec), **changed}})


def test_a_spec_of_a_newer_version_is_refused(database: Database) -> None:
    tree = to_tree(make_spec())
    assert parse_spec(tree) == make_spec()
    for changed, why in (
        ({"format": FORMAT + 1}, f"its spec has format {FORMAT + 1}, and this version reads formats 1 to {FORMAT}"),
        ({"format": 0}, "its spec has format 0"),
        ({"horoscope": 1}, "horoscope.*use a newer version of miiii-search"),
    ):
        with pytest.raises(VersionMismatchError, match=why):
            parse_spec({**tree, **changed})
    study = create_study(database, "newer", make_spec())
    write_spec_tree(study, format=FORMAT + 1)
    with pytest.raises(VersionMismatchError, match=r"study `newer` was created by miiii-search .* cannot read it"):
        open_study(database, "newer")


def test_a_spec_of_an_older_version_is_rewritten_once(database: Database) -> None:
    study = create_study(database, "older", make_spec())
    assert not upgrade_stored_spec(study)
    write_spec_tree(study, format=1)
    assert upgrade_stored_spec(study) and not upgrade_stored_spec(study)
    assert study.store.read_attributes(SPEC_KEY)[SPEC_KEY]["format"] == FORMAT
    assert open_study(database, "older").spec == study.spec


@pytest.fixture
def stored(database: Database, tmp_path: Path) -> Study:
    """A study whose two trials have an artifact each in a folder."""
    (tmp_path / "artifacts").mkdir()
    url = parse_store_url(str(tmp_path / "artifacts"))
    store = RemoteArtifactStore(url)
    store.write_marker()
    study = create_study(database, "stored", make_spec(), url)
    for k in range(2):
        artifact_id = f"0000000{k}-0000-4000-8000-000000000000"
        (tmp_path / "data").write_bytes(bytes([k]) * 100)
        with (tmp_path / "data").open("rb") as data:
            store.write(artifact_id, data)
        links = dict([artifact_link(artifact_id, "a.bin")])
        assert study.queue.finish(Heartbeat(claim(study), 1, 1.0), ended(links=links)) == FinishStatus.WRITTEN
    return study


def test_an_archive_holds_the_artifacts_of_a_folder_that_are_there(stored: Study, tmp_path: Path) -> None:
    path = tmp_path / "study.zip"
    assert export_study(stored, path).missing == ()
    RemoteArtifactStore(str(stored.artifact_store_url)).remove("00000001-0000-4000-8000-000000000000")
    assert export_study(stored, path).missing == ("00000001-0000-4000-8000-000000000000",)
    other = open_database(f"sqlite:///{tmp_path}/other.db", create=True)
    copy = import_study(other, path, None)
    assert copy.store.read_artifact("00000000-0000-4000-8000-000000000000") == bytes(100)
    other.close()


def test_a_store_that_does_not_answer(stored: Study, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "artifacts")
    with pytest.raises(MiiiiSearchError, match=r"cannot read artifacts of the study from file:.*; is it reachable\?"):
        export_study(stored, tmp_path / "study.zip")
    assert not (tmp_path / "study.zip").exists()
    with pytest.raises(MiiiiSearchError, match="delete the study anyway with --force, which leaves its artifacts"):
        delete(stored)
    with pytest.raises(MiiiiSearchError, match="cannot look for the study's artifacts"):
        delete(stored, force=True)  # it is deleted all the same
    assert stored.database.studies.find("stored") is None
