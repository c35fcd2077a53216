"""A study is identified by its random id, not by its name, its number in the database, or its URL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.record import find_snapshots
from miiii_search.runs.trial_runs import find_finished_trial, read_trial_run
from miiii_search.storage import study_attrs
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.study_attrs import CREATED_KEY, ID_KEY
from miiii_search.study.archive_export import export_study
from miiii_search.study.archive_import import import_study
from miiii_search.study.cleanup import old_snapshots
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete
from miiii_search.study.open import open_study
from miiii_search.study.snapshots import claim_folder, study_folder, trial_folder
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from miiii_search.testing.postgres import DatabaseServer, open_engine
from miiii_search.worker.checkpoints import LocalCheckpoints
from tests.support import claim, end, make_spec, together, with_all


def forget_id(study: Study) -> None:
    """Remove the study's id, as if an older version had created it."""
    with study.database.transaction() as connection:
        study_attrs.remove(connection, study.study_id, [ID_KEY])


def reopen(database: Database) -> Database:
    return open_database(database.url.render_as_string(hide_password=False))


def leave_weights(folder: Path, study: Study, number: int, content: bytes) -> None:
    path = trial_folder(folder, study, number) / "epoch-256.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_every_study_has_an_id_of_its_own(database: Database) -> None:
    one, two = create_study(database, "one", make_spec()), create_study(database, "two", make_spec())
    assert one.id and two.id and one.id != two.id
    assert create_study(database, "one", make_spec()).id == open_study(database, "one").id == one.id


def test_a_study_made_again_under_its_name_is_another(database: Database) -> None:
    study = create_study(database, "study", make_spec())
    delete(study)
    again = create_study(database, "study", make_spec())
    assert again.id != study.id
    with pytest.raises(MiiiiSearchError, match="was deleted"):
        study.refresh()


def test_a_deleted_study_that_is_imported_again_is_another(database: Database, tmp_path: Path) -> None:
    """An imported study differs from the deleted one, although time of creation and number may be the same."""
    study = create_study(database, "study", make_spec())
    export_study(study, tmp_path / "study.zip")
    delete(study)
    again = import_study(database, tmp_path / "study.zip", None)
    assert again.created_at == study.created_at and again.id not in (None, study.id)
    with pytest.raises(MiiiiSearchError, match="was deleted"):
        study.refresh()
    with pytest.raises(MiiiiSearchError, match="was deleted"), study.store.transaction() as tx:
        tx.lock()


def test_a_study_of_an_older_version_gets_one_id(database: Database) -> None:
    """Concurrent processes all get the same id."""
    study = create_study(database, "study", make_spec())
    forget_id(study)
    databases = [reopen(database) for _ in range(4)]
    opened = together(*(partial(open_study, one, "study") for one in databases))
    for one in databases:
        one.close()
    assert len({one.id for one in opened}) == 1
    assert opened[0].id not in (None, study.id)
    assert open_study(database, "study").id == opened[0].id


@pytest.fixture
def reader(postgres_server: DatabaseServer, postgres_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a role that can only read, because of its rights or because of a server setting."""
    role = f"reader_{request.param}"
    with open_engine(postgres_url).begin() as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'reader'",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}",
            *([f"ALTER ROLE {role} SET default_transaction_read_only = on"] if request.param == "standby" else []),
        ):
            connection.execute(sa.text(statement))
    yield sa.make_url(postgres_url).set(username=role, password="reader").render_as_string(hide_password=False)
    with open_engine(postgres_url).begin() as connection:
        connection.execute(sa.text(f"DROP OWNED BY {role}"))
        connection.execute(sa.text(f"DROP ROLE {role}"))


@pytest.mark.parametrize("reader", ["rights", "standby"], indirect=True)
def test_a_role_that_only_reads(postgres_url: str, reader: str, tmp_path: Path) -> None:
    """Such a role can read a study without an id, and gets an error where an id is needed."""
    owner = open_database(postgres_url, create=True)
    forget_id(create_study(owner, "study", make_spec()))
    database = open_database(reader)
    study = open_study(database, "study")
    assert study.id is None and read_status(study).counts["waiting"] == 24
    with pytest.raises(MiiiiSearchError, match=r"has no id yet.*open it once as the database's owner"):
        LocalCheckpoints(tmp_path, study)
    given = open_study(owner, "study").id
    study.refresh()  # it is still the same study
    assert open_study(database, "study").id == given is not None
    database.close()
    owner.close()


def test_an_import_has_a_new_id(database: Database, tmp_path: Path) -> None:
    study = create_study(database, "study", make_spec())
    export_study(study, tmp_path / "study.zip")
    copies = [import_study(database, tmp_path / "study.zip", name) for name in ("copy", "another")]
    assert len({study.id, *(copy.id for copy in copies)}) == 3
    assert [origin for origin, _ in copies[0].origins] == [study.id]
    export_study(copies[0], tmp_path / "copy.zip")
    third = import_study(database, tmp_path / "copy.zip", "third")
    assert [origin for origin, _ in third.origins] == [copies[0].id, study.id]


def test_checkpoints_of_one_file_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to("x.db")
    folders = set()
    for url in ("sqlite:///x.db", "sqlite:///./x.db", f"sqlite:///{tmp_path}/x.db", "sqlite:///link.db"):
        database = open_database(url, create=True)
        folders.add(LocalCheckpoints(tmp_path, create_study(database, "demo", make_spec())).folder)
        database.close()
    assert len(folders) == 1


def test_checkpoints_of_one_server_however_it_is_named(postgres_url: str, tmp_path: Path) -> None:
    folders = set()
    for host in ("127.0.0.1", "localhost"):
        url = sa.make_url(postgres_url).set(host=host).render_as_string(hide_password=False)
        database = open_database(url, create=True)
        folders.add(LocalCheckpoints(tmp_path, create_study(database, "demo", make_spec())).folder)
        database.close()
    assert len(folders) == 1


def test_checkpoints_of_namesakes_are_apart(tmp_path: Path) -> None:
    """Checkpoints of studies with the same name are separate: in two databases, a copied file, a recreated study."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    databases = [open_database(f"sqlite:///{tmp_path}/{name}/miiii-search.db", create=True) for name in "ab"]
    studies = [create_study(database, "demo", make_spec()) for database in databases]
    folders = [LocalCheckpoints(tmp_path, study).folder for study in studies]
    for database in databases:
        database.close()
    shutil.copy(tmp_path / "a" / "miiii-search.db", tmp_path / "copy.db")
    database = open_database(f"sqlite:///{tmp_path}/copy.db")
    copied = open_study(database, "demo")
    folders.append(LocalCheckpoints(tmp_path, copied).folder)
    delete(copied)
    folders.append(LocalCheckpoints(tmp_path, create_study(database, "demo", make_spec())).folder)
    database.close()
    assert len(set(folders)) == 4


def test_checkpoints_of_a_deleted_study_are_removed(database: Database, tmp_path: Path) -> None:
    """Only they are removed: not those of other studies or databases, nor the user's files."""
    deleted, other = (create_study(database, name, make_spec()) for name in ("deleted", "other"))
    elsewhere = open_database(f"sqlite:///{tmp_path}/elsewhere.db", create=True)
    foreign = create_study(elsewhere, "deleted", make_spec())
    places = {study.id: LocalCheckpoints(tmp_path, study) for study in (deleted, other, foreign)}
    for local in places.values():
        local.save(1, 8, b"data")
    (places[other.id].folder.parent / "mine").mkdir()
    delete(deleted)
    places[other.id].remove_deleted_studies()
    assert not places[deleted.id].folder.exists()
    assert places[other.id].trial_ids() == places[foreign.id].trial_ids() == {1}
    assert (places[other.id].folder.parent / "mine").is_dir()
    elsewhere.close()


def test_weights_of_a_copied_database_are_not_the_original_s(tmp_path: Path) -> None:
    """A worker of the copy refuses the folder, `analyze` reports it, and `cleanup` leaves the files."""
    database = open_database(f"sqlite:///{tmp_path}/original.db", create=True)
    study = create_study(database, "study", make_spec())
    with_all(study)
    for _ in range(2):  # by two workers
        claim_folder(tmp_path, study)
    leave_weights(tmp_path, study, 0, b"original's")
    database.close()
    shutil.copy(tmp_path / "original.db", tmp_path / "copy.db")
    database = open_database(f"sqlite:///{tmp_path}/copy.db")
    copy = open_study(database, "study")
    with pytest.raises(MiiiiSearchError, match="belong to another database"):
        claim_folder(tmp_path, copy)
    run, lines = read_trial_run(copy, find_finished_trial(copy, 0), tmp_path)
    assert run.snapshots == {} and "belong to another database" in lines[0]
    with pytest.raises(MiiiiSearchError, match="belong to another database"):
        old_snapshots(copy, tmp_path, 0)
    database.close()


def test_weights_of_several_studies_in_one_folder(database: Database, tmp_path: Path) -> None:
    """Two studies share a folder. Neither reads the other's snapshots, and `cleanup` keeps them."""
    one, two = create_study(database, "one", make_spec()), create_study(database, "two", make_spec())
    for study, content in ((one, b"1"), (two, b"2")):
        with_all(study)
        leave_weights(tmp_path, study, 0, content)
    for study, content in ((one, b"1"), (two, b"2")):
        read, _ = read_trial_run(study, find_finished_trial(study, 0), tmp_path)
        assert [path.read_bytes() for path in read.snapshots.values()] == [content]
        assert [path.read_bytes() for path in old_snapshots(study, tmp_path, 0)] == [content]


def test_an_imported_study_finds_its_weights(database: Database, tmp_path: Path) -> None:
    """It finds the weights of trials that ended before the export, not of those that its origin trained later."""
    study = create_study(database, "study", make_spec())
    with_all(study)
    export_study(study, tmp_path / "study.zip")
    copy = import_study(database, tmp_path / "study.zip", "copy")
    for one in (study, copy):
        end(one, claim(one))
    [later] = [t.number for t in copy.trials() if t.state.is_finished() and t.number > 2]
    for number in (0, later):
        leave_weights(tmp_path, study, number, b"origin's")
    read, _ = read_trial_run(copy, find_finished_trial(copy, 0), tmp_path)
    assert [path.read_bytes() for path in read.snapshots.values()] == [b"origin's"]
    assert read_trial_run(copy, find_finished_trial(copy, later), tmp_path)[0].snapshots == {}
    assert old_snapshots(copy, tmp_path, 0) == []


def test_weights_that_an_older_version_left(database: Database, tmp_path: Path) -> None:
    """It is unknown which study they belong to. They are not used, and a message says what to do."""
    study = create_study(database, "study", make_spec())
    with_all(study)
    (tmp_path / "trial-0").mkdir()
    (tmp_path / "trial-0" / "epoch-256.npz").write_bytes(b"whose?")
    read, problems = read_trial_run(study, find_finished_trial(study, 0), tmp_path)
    assert read.snapshots == {}
    [line] = [line for line in problems if "older version" in line]
    place = trial_folder(tmp_path, study, 0)
    assert line.endswith(f"if it belongs to `study`, move it to {place}")
    place.parent.mkdir()
    (tmp_path / "trial-0").rename(place)
    assert list(read_trial_run(study, find_finished_trial(study, 0), tmp_path)[0].snapshots) == [256]
    assert old_snapshots(study, tmp_path, 0) == list(find_snapshots(place).values())


@pytest.mark.parametrize("name", ["../../out", ".hidden", "ä/ö", "x" * 200])
def test_a_study_folder_stays_below_its_folder(database: Database, tmp_path: Path, name: str) -> None:
    study = create_study(database, name, make_spec())
    folder = study_folder(tmp_path, study)
    assert folder.resolve().parent == tmp_path and not folder.name.startswith(".") and len(folder.name) < 80


def test_the_time_of_creation_still_tells_studies_apart(database: Database) -> None:
    """A process that opened a study before it had an id still detects that it was replaced."""
    study = replace(create_study(database, "study", make_spec()), id=None)
    study.refresh()
    with database.transaction() as connection:
        study_attrs.write(connection, study.study_id, {CREATED_KEY: 1.0})
    with pytest.raises(MiiiiSearchError, match="was deleted"):
        study.refresh()
