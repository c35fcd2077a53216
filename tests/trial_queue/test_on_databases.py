"""The queue on real databases: creation, concurrency, locks, interruptions, and what Optuna's own programs see.

The contract of each method is in `test_contract`.

Everything is read back through Optuna's public interface, because `storage.schema` writes into Optuna's tables.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
import sqlalchemy as sa
from optuna.artifacts import download_artifact, get_all_artifact_meta, upload_artifact
from optuna.artifacts._protocol import ArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import StudyDirection
from optuna.trial import TrialState

from miiii_search.config.search_space import Range
from miiii_search.config.study_sections import Budget
from miiii_search.coordinator.coordinator import supervise
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import engines, schema
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES, Artifact, DatabaseArtifactStore
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.retry import is_outage
from miiii_search.storage.trial_attrs import SHAPE_KEY
from miiii_search.study.create import create_study
from miiii_search.study.names import study_names
from miiii_search.study.objective import OBJECTIVE_NAME
from miiii_search.study.open import open_study
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from miiii_search.testing.postgres import PostgresServer
from miiii_search.trial_queue import _leases, leases
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from miiii_search.trial_queue.trial_queue import TrialQueue
from tests.support import (
    OVERDUE,
    SECONDS,
    SPACE,
    TINY,
    claim,
    end,
    everything,
    make_spec,
    read_back,
    together,
    wait_until,
)

GRID = [dict(zip(SPACE, point, strict=True)) for point in itertools.product(*SPACE.values())]


@pytest.fixture
def study(database: Database) -> Study:
    return create_study(database, "study", make_spec())


def another(database: Database) -> Database:
    """Open the same database once more, as another process does."""
    return open_database(database.url.render_as_string(hide_password=False))


@contextlib.contextmanager
def failing_at(database: Database, statement: str) -> Iterator[None]:
    """Fail at a statement that begins with this text, as if the worker's machine died there."""

    def fail(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        if text.startswith(statement):
            raise ConnectionAbortedError

    sa.event.listen(database.engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(ConnectionAbortedError):
            yield
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", fail)


def leased(study: Study) -> dict[int, str]:
    """Return the token of every lease of the study, by trial id."""
    columns = schema.leases.c
    with study.database.engine.connect() as connection:
        query = sa.select(columns.trial_id, columns.token).where(columns.study_id == study.study_id)
        return {row.trial_id: row.token for row in connection.execute(query)}


def states(study: Study) -> list[TrialState]:
    return [trial.state for trial in read_back(study).trials]


# The queue


def test_create_makes_the_whole_queue(study: Study) -> None:
    seen = read_back(study)
    assert [trial.number for trial in seen.trials] == list(range(24))
    assert {trial.state for trial in seen.trials} == {TrialState.WAITING}
    params = [trial.params for trial in seen.trials]
    assert sorted(params, key=repr) == sorted(GRID, key=repr)
    assert params != GRID
    for trial in seen.trials:
        for name, values in SPACE.items():
            assert trial.distributions[name] == optuna.distributions.CategoricalDistribution(values)
    assert seen.direction == StudyDirection.MAXIMIZE
    assert seen.metric_names == [OBJECTIVE_NAME]
    note = optuna_dashboard.get_note(seen)
    assert "24 trials" in note and all(f"\n- {name}: " in note for name in SPACE)


def test_the_seed_determines_the_order(database: Database) -> None:
    def order(name: str, seed: int) -> list[Any]:
        spec = make_spec(experiment=TINY.model_copy(update={"seed": seed}))
        return [trial.params for trial in read_back(create_study(database, name, spec)).trials]

    assert order("a", 1) == order("b", 1) != order("c", 2)


def test_values_come_back_with_their_types(database: Database) -> None:
    space = {"dropout_mask": ("batch", "sample"), "d_model": (16, 32), "weight_decay": (0.0, 1 / 3)}
    made = create_study(database, "types", make_spec(space=space))
    points = [tuple(trial.params[name] for name in space) for trial in read_back(made).trials]
    assert sorted(points) == sorted(itertools.product(*space.values()))
    assert {tuple(map(type, point)) for point in points} == {(str, int, float)}
    for trial in made.trials():
        experiment, hyperparameters = made.trial_settings(trial)
        assert experiment.dropout_mask == trial.params["dropout_mask"]
        assert (hyperparameters.d_model, hyperparameters.weight_decay) == (
            trial.params["d_model"],
            trial.params["weight_decay"],
        )


def test_replicates_differ_in_their_seed_alone(database: Database) -> None:
    spec = make_spec(replicates=2, experiment=TINY.model_copy(update={"seed": 5}))
    study = create_study(database, "replicated", spec)
    runs = [(trial.params, study.trial_settings(trial)[0].seed) for trial in study.trials()]
    assert sorted(runs, key=repr) == sorted(itertools.product(GRID, [5, 6]), key=repr)


def test_create_twice_changes_nothing(study: Study) -> None:
    claim(study)
    before = everything(study.database)
    other = another(study.database)
    again = create_study(other, "study", make_spec())
    other.close()
    assert (again.study_id, again.spec) == (study.study_id, study.spec)
    assert everything(study.database) == before
    # A preset's name says where a spec came from, not what it is.
    create_study(study.database, "study", make_spec(preset="demo"))
    assert everything(study.database) == before


def test_another_spec_is_refused(study: Study) -> None:
    before = everything(study.database)
    other = make_spec(
        experiment=TINY.model_copy(update={"epochs": 96}),
        space={**SPACE, "dropout": (0.0, 0.2)},
        budget=Budget(trials=3),
    )
    with pytest.raises(MiiiiSearchError) as error:
        create_study(study.database, "study", other)
    for difference in (
        "experiment.epochs is 48, not 96",
        "space.dropout is [0.0, 0.1], not [0.0, 0.2]",
        'budget.trials is "unset", not 3',
    ):
        assert difference in str(error.value)
    assert "hyperparameters" not in str(error.value)
    assert everything(study.database) == before


@pytest.mark.parametrize("direction", [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE])
def test_a_study_of_somebody_else_is_refused(database: Database, direction: StudyDirection) -> None:
    foreign = optuna.create_study(study_name="theirs", storage=database.optuna, direction=direction)
    if direction == StudyDirection.MAXIMIZE:  # or else it could be one whose creator died
        foreign.ask()
    before = everything(database)
    with pytest.raises(MiiiiSearchError, match="`theirs` was not created by miiii-search; choose another"):
        create_study(database, "theirs", make_spec())
    with pytest.raises(MiiiiSearchError, match="`theirs` was not created by miiii-search; choose another"):
        open_study(database, "theirs")
    assert everything(database) == before


def test_open_names_what_there_is(database: Database) -> None:
    with pytest.raises(MiiiiSearchError, match="there is none yet"):
        open_study(database, None)
    first = create_study(database, "first", make_spec(budget=Budget(trials=2)))
    assert open_study(database, None) == first
    create_study(database, "second", make_spec(budget=Budget(trials=2)))
    assert study_names(database) == ["first", "second"]
    with pytest.raises(MiiiiSearchError, match="`first`, `second`"):
        open_study(database, None)
    with pytest.raises(MiiiiSearchError, match=r"no study `frist`.*did you mean `first`"):
        open_study(database, "frist")


@pytest.mark.parametrize("name", ["", "x" * 201, "two\nlines"])
def test_invalid_names_are_refused(database: Database, name: str) -> None:
    with pytest.raises(MiiiiSearchError, match="1 to 200 characters"):
        create_study(database, name, make_spec())
    assert study_names(database) == []


def test_a_creation_that_was_interrupted_can_be_repeated(database: Database) -> None:
    with failing_at(database, "INSERT INTO trial_system_attributes"):
        create_study(database, "study", make_spec())
    assert len(read_back(create_study(database, "study", make_spec())).trials) == 24


def test_threads_create_one_study(database: Database) -> None:
    others = [another(database) for _ in range(3)]
    made = together(*(lambda d=d: create_study(d, "study", make_spec()) for d in [database, *others]))
    for other in others:
        other.close()
    assert len({study.study_id for study in made}) == 1
    assert sorted((t.params for t in read_back(made[0]).trials), key=repr) == sorted(GRID, key=repr)


@pytest.mark.slow
def test_processes_create_one_study_in_a_new_database(storage_url: str) -> None:
    program = textwrap.dedent("""
        import sys
        from miiii_search.storage.database import open_database
        from miiii_search.study.create import create_study
        from tests.support import make_spec
        print("ready", flush=True)
        sys.stdin.readline()
        database = open_database(sys.argv[1], create=True)
        create_study(database, "study", make_spec())
        database.close()
    """)
    root = Path(__file__).parents[2]
    # Optuna leaves the connections open of a storage that it could not make.
    warnings = ("-W", "error", "-W", "ignore::ResourceWarning")
    command = [sys.executable, *warnings, "-c", program, storage_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with contextlib.ExitStack() as stack:
        creators = [
            stack.enter_context(subprocess.Popen(command, text=True, cwd=root, **pipes))  # type: ignore[call-overload]
            for _ in range(2)
        ]
        for creator in creators:
            assert creator.stdout.readline() == "ready\n", creator.stderr.read()
        for creator in creators:
            creator.stdin.write("\n")
            creator.stdin.flush()
        for creator in creators:
            _, complaint = creator.communicate(timeout=600)
            assert (creator.returncode, complaint) == (0, "")
    database = open_database(storage_url)
    assert sorted((t.params for t in read_back(open_study(database, None)).trials), key=repr) == sorted(GRID, key=repr)
    database.close()


# Claims


@pytest.mark.parametrize("n", [1, 5])
def test_claims_are_unique(study: Study, n: int) -> None:
    other = another(study.database)

    def work(database: Database) -> list[Lease]:
        queue, mine = TrialQueue(database, study.study_id), []
        while claimed := queue.claim("worker", SECONDS, n=n):
            assert len(claimed) <= n
            mine += claimed
        return mine

    found = together(*(lambda d=d: work(d) for d in [study.database, other] * 4))
    other.close()
    claimed = [lease for mine in found for lease in mine]
    assert sorted(lease.number for lease in claimed) == list(range(24))
    assert leased(study) == {lease.trial_id: lease.token for lease in claimed}
    assert len({lease.token for lease in claimed}) == 24
    assert set(states(study)) == {TrialState.RUNNING}


def test_a_trial_is_running_and_leased_at_once(study: Study) -> None:
    with failing_at(study.database, "INSERT INTO miiii_leases"):
        claim(study)
    assert leased(study) == {} and set(states(study)) == {TrialState.WAITING}
    with failing_at(study.database, "UPDATE trials"):
        claim(study)
    assert leased(study) == {} and set(states(study)) == {TrialState.WAITING}
    lease = claim(study)
    assert leased(study) == {lease.trial_id: lease.token}
    assert states(study)[lease.number] == TrialState.RUNNING


def test_attributes_of_other_programs_do_not_matter_to_claims(study: Study) -> None:
    """A trial may have any number of them, before and after our own in the alphabet."""
    [shape] = {trial.system_attrs[SHAPE_KEY] for trial in study.trials()[:1]}
    for trial in study.trials()[:3]:
        for key in ("a", "z"):
            study.database.optuna.set_trial_system_attr(trial._trial_id, key, shape)
    claimed = study.queue.claim("worker", SECONDS, n=24, preferred_shapes=[shape])
    assert sorted(lease.number for lease in claimed) == list(range(24))


def test_claims_and_unsolved_results_wait_for_no_other_claim(postgres_url: str) -> None:
    """A claim in progress locks its trials, and the study only against changes. SQLite has only one writer."""
    database, other = open_database(postgres_url, create=True), open_database(postgres_url)
    study = create_study(database, "study", make_spec())
    ended = claim(study)
    result = TrialResult(TrialState.COMPLETE, 0.5, "ended.", {}, [])
    with database.transaction() as connection:
        schema.lock_study(connection, study.study_id, shared=True)
        first = sa.select(schema.trials.c.number).where(schema.trials.c.number == 1).with_for_update()
        assert connection.execute(first).scalar_one() == 1
        with other.transaction() as second:
            second.execute(sa.text("SET lock_timeout = '5s'"))  # of the connection that the pool hands out next
        queue = TrialQueue(other, study.study_id)
        assert [lease.number for lease in queue.claim("worker", SECONDS)] == [2]
        assert queue.finish(Heartbeat(ended, 1, 1.0), result, solved_budget=1) == FinishStatus.WRITTEN
    assert claim(study).number == 1
    database.close()
    other.close()


# Leases


def test_coordinators_take_turns(study: Study) -> None:
    late = [claim(study, OVERDUE) for _ in range(12)]
    other = another(study.database)
    found = together(*(TrialQueue(d, study.study_id).requeue_overdue for d in [study.database, other] * 2))
    other.close()
    assert sorted(number for numbers in found for number in numbers) == [lease.number for lease in late]


def test_renewing_and_requeueing_do_not_block_each_other(study: Study) -> None:
    """Each trial is either renewed or requeued, and neither side ends in a deadlock."""
    late = [claim(study, OVERDUE) for _ in range(24)]
    random.Random(0).shuffle(late)
    other = another(study.database)
    lost: set[Lease] = set()

    def renew() -> None:
        beats = [Heartbeat(lease, 1, 1.0) for lease in late if lease not in lost]
        for _ in range(10):
            lost.update({beat.lease for beat in beats} - study.queue.report(beats, {}, OVERDUE))

    def take_back() -> list[int]:
        queue = TrialQueue(other, study.study_id)
        return [number for _ in range(10) for number in queue.requeue_overdue()]

    _, *taken = together(renew, take_back, take_back)
    other.close()
    numbers = [number for found in taken for number in found]
    assert len(numbers) == len(set(numbers))
    waiting = [number for number, state in enumerate(states(study)) if state == TrialState.WAITING]
    assert sorted(numbers) == waiting


def test_a_lease_that_is_being_renewed_is_not_requeued(postgres_url: str) -> None:
    """Nor waited for, because that could be a deadlock. SQLite has only one writer at a time."""
    database, other = open_database(postgres_url, create=True), open_database(postgres_url)
    study = create_study(database, "study", make_spec())
    renewed, late = claim(study, OVERDUE), claim(study, OVERDUE)
    with database.transaction() as connection:
        assert _leases.renew(connection, [Heartbeat(renewed, 1, 1.0)], SECONDS) == {renewed}
        with other.transaction() as second:
            second.execute(sa.text("SET lock_timeout = '5s'"))  # of the connection that the pool hands out next
        assert TrialQueue(other, study.study_id).requeue_overdue() == [late.number]
    assert leased(study) == {renewed.trial_id: renewed.token}
    database.close()
    other.close()


def test_an_idle_transaction_ends_and_its_trial_is_requeued(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process was stopped, or a machine disappeared, while it renewed its leases."""
    monkeypatch.setattr(engines, "IDLE_TRANSACTION_SECONDS", 5)
    database, other = open_database(postgres_url, create=True), open_database(postgres_url)
    study = create_study(database, "study", make_spec())
    lease = claim(study, OVERDUE)
    with pytest.raises(sa.exc.DBAPIError) as lost, database.transaction() as connection:
        assert _leases.renew(connection, [Heartbeat(lease, 1, 1.0)], SECONDS) == {lease}
        queue = TrialQueue(other, study.study_id)
        assert queue.requeue_overdue() == []
        assert wait_until(queue.requeue_overdue) == [lease.number]
    assert is_outage(lost.value)  # so it is tried again, and finds that the lease is lost
    with database.transaction() as connection:
        assert _leases.renew(connection, [Heartbeat(lease, 1, 1.0)], SECONDS) == set()
    for engine in (database.engine, database.optuna.engine):
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SHOW idle_in_transaction_session_timeout")) == "5s"
    database.close()
    other.close()


def test_leases_expire_by_the_clock_of_the_database(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Tomorrow:
            later = datetime.now(tz) + timedelta(days=1)
            return cls.fromtimestamp(later.timestamp(), tz)

    def wrong_clock(ahead: bool) -> None:
        actual = time.time()
        monkeypatch.setattr(time, "time", lambda: actual + (86400 if ahead else -86400))
        monkeypatch.setattr(leases, "datetime", Tomorrow if ahead else datetime)

    lease = claim(study)
    wrong_clock(ahead=True)
    assert study.queue.requeue_overdue() == []
    theirs = claim(study, 0.01)
    wrong_clock(ahead=False)
    assert wait_until(study.queue.requeue_overdue) == [theirs.number]
    [running] = read_status(study).running
    assert running.number == lease.number and 0 <= running.silent_seconds < 60


def test_the_clock_of_the_database(database: Database) -> None:
    with database.engine.connect() as connection:
        clock = connection.scalar(sa.select(schema.now(connection)))
    assert clock == pytest.approx(datetime.now(UTC).timestamp(), abs=30)


# Results


ENDS = [
    (TrialState.COMPLETE, 1.75),
    (TrialState.PRUNED, 0.125),
    (TrialState.FAIL, None),
]


@pytest.mark.parametrize(("state", "value"), ENDS)
def test_finish_stores_the_result(study: Study, tmp_path: Path, state: TrialState, value: float | None) -> None:
    lease = claim(study)
    note = "solved λ = ½ at epoch 7. " * 300  # more than the dashboard keeps in one attribute
    attributes = {"epochs_to_solve": 7, "test_accuracy": {"7": 0.5}, "device": "cpu", "none": None}
    files = {"curve.png": b"\x89PNG" + bytes(300), "record.npz": random.Random(0).randbytes(200_000)}
    result = TrialResult(state, value, note, attributes, [Artifact(*file) for file in files.items()])
    assert study.queue.finish(Heartbeat(lease, 7, 1.0), result) == FinishStatus.WRITTEN

    seen = read_back(study)
    trial = seen.trials[lease.number]
    assert (trial.state, trial.value, trial.user_attrs) == (state, value, attributes)
    assert trial.duration is not None and timedelta(0) <= trial.duration < timedelta(minutes=1)
    assert optuna_dashboard.get_note(optuna.trial.Trial(seen, lease.trial_id)) == note
    found = get_all_artifact_meta(trial, storage=seen._storage)
    assert {meta.filename: meta.mimetype for meta in found} == {
        "curve.png": "image/png",
        "record.npz": "application/octet-stream",
    }
    for meta in found:
        path = tmp_path / meta.filename
        store = DatabaseArtifactStore(study.database)
        download_artifact(artifact_store=store, artifact_id=meta.artifact_id, file_path=str(path))
        assert path.read_bytes() == files[meta.filename]
    assert leased(study) == {}
    assert study.queue.requeue_overdue() == []
    if state == TrialState.COMPLETE:
        assert seen.best_trial.number == lease.number


def test_finish_is_all_or_nothing(study: Study) -> None:
    lease = claim(study)
    before = everything(study.database)
    result = TrialResult(TrialState.COMPLETE, 1.0, "ended.", {"a": 1}, [Artifact("a.png", b"a")])
    for statement in ("DELETE FROM miiii_leases", "UPDATE trials", "INSERT INTO study_system_attributes"):
        with failing_at(study.database, statement):
            study.queue.finish(Heartbeat(lease, 7, 1.0), result)
        assert everything(study.database) == before
    assert study.queue.finish(Heartbeat(lease, 7, 1.0), result) == FinishStatus.WRITTEN


@pytest.mark.postgres
def test_after_a_restart_of_the_server_workers_have_a_period_to_come_back() -> None:
    """No worker could renew while the server was down. A coordinator must not requeue their trials at once."""
    with PostgresServer() as server:
        opened = open_database(server.create_database(), create=True)
        study = create_study(opened, "study", make_spec())
        lease = claim(study, 600.0)
        with opened.transaction() as connection:  # as if the server had been down for longer than a lease lasts
            table = schema.leases
            earlier = {"renewed_at": table.c.renewed_at - 700, "expires_at": table.c.expires_at - 700}
            connection.execute(sa.update(table).values(earlier))
        server.stop("immediate")
        server.start()
        assert study.queue.requeue_overdue() == []
        with opened.transaction() as connection:
            assert _leases.renew(connection, [Heartbeat(lease, 7, 1.0)], 1.0) == {lease}
        wait_until(lambda: study.queue.requeue_overdue() == [lease.number])
        opened.close()


def test_missing_tables_and_columns_of_an_earlier_version_are_created(study: Study) -> None:
    with study.database.transaction() as connection:
        connection.execute(sa.text("DROP TABLE miiii_checkpoints"))
        connection.execute(sa.text("ALTER TABLE miiii_leases DROP COLUMN saved_epoch"))
    other = another(study.database)
    lease = claim(study)
    assert TrialQueue(other, study.study_id).share_checkpoint(Heartbeat(lease, 4, 1.0, 4), 4, b"checkpoint", SECONDS)
    other.close()


def test_a_trial_ended_in_the_dashboard_stays_ended(study: Study) -> None:
    lease = claim(study)
    read_back(study).tell(lease.number, 0.125)
    result = TrialResult(TrialState.COMPLETE, 1.0, "ended.", {"a": 1}, [])
    assert study.queue.finish(Heartbeat(lease, 7, 1.0), result) == FinishStatus.LEASE_LOST
    trial = read_back(study).trials[lease.number]
    assert (trial.value, trial.user_attrs) == (0.125, {})


def test_readers_do_not_wait_for_a_writer(study: Study) -> None:
    lease = claim(study)
    other = another(study.database)
    second = replace(study, database=other)
    with study.database.transaction() as connection:
        _leases.renew(connection, [Heartbeat(lease, 40, 1.0)], SECONDS)
        assert [running.epoch for running in read_status(second).running] == [0]
        assert second.counts()[TrialState.RUNNING] == 1
    assert [running.epoch for running in read_status(second).running] == [40]
    other.close()


# Together with Optuna's own programs


def test_optunas_own_worker_trains_a_trial_of_ours(study: Study) -> None:
    stock = read_back(study)
    trial = stock.ask()
    frozen = study.trials()[trial.number]
    for name, values in SPACE.items():
        assert trial.suggest_categorical(name, values) == frozen.params[name]
    trial.report(0.25, 4)
    stock.tell(trial, 0.5)
    ended = read_back(study).trials[trial.number]
    assert (ended.state, ended.value, ended.params) == (TrialState.COMPLETE, 0.5, frozen.params)
    assert len(read_back(study).trials) == 24
    assert claim(study).number != trial.number


# Artifacts


def test_artifact_store(database: Database) -> None:
    store: ArtifactStore = DatabaseArtifactStore(database)
    data = bytes(range(256)) * 1000
    store.write("one", io.BytesIO(data))
    store.write("empty", io.BytesIO(b""))
    with store.open_reader("one") as reader:
        assert reader.read() == data
    with store.open_reader("empty") as reader:
        assert reader.read() == b""
    store.remove("one")
    for use in (store.open_reader, store.remove):
        with pytest.raises(ArtifactNotFound, match="one"):
            use("one")
    with pytest.raises(ArtifactNotFound):
        download_artifact(artifact_store=store, artifact_id="one", file_path="nowhere")


def test_artifact_that_is_too_large(database: Database) -> None:
    class Zeros(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            assert 0 < size <= MAX_ARTIFACT_BYTES + 1  # an endless file must not be read into memory
            return bytes(size)

    store = DatabaseArtifactStore(database)
    with pytest.raises(ValueError, match=f"at most {MAX_ARTIFACT_BYTES} bytes"):
        store.write("large", Zeros())  # type: ignore[arg-type]
    with pytest.raises(ArtifactNotFound):
        store.open_reader("large")


def test_optuna_uploads_to_our_store(study: Study, tmp_path: Path) -> None:
    stock = read_back(study)
    trial = stock.ask()
    (tmp_path / "notes.csv").write_text("a,b\n")
    store = DatabaseArtifactStore(study.database)
    name = str(tmp_path / "notes.csv")
    artifact_id = upload_artifact(artifact_store=store, file_path=name, study_or_trial=trial)
    [meta] = get_all_artifact_meta(trial)
    assert (meta.artifact_id, meta.filename) == (artifact_id, "notes.csv")
    with store.open_reader(artifact_id) as reader:
        assert reader.read() == b"a,b\n"


# The state of a study


def test_counts_and_done(database: Database) -> None:
    study = create_study(database, "study", make_spec(budget=Budget(trials=4)))

    def counts() -> dict[str, int]:
        found = {state.name: count for state, count in study.counts().items() if count}
        assert found == Counter(state.name for state in states(study))
        status = read_status(study)
        assert {name.upper(): count for name, count in status.counts.items() if count} == found
        assert status.done == study.is_done()
        return found

    assert counts() == {"WAITING": 4}
    held = [claim(study) for _ in range(4)]
    assert counts() == {"RUNNING": 4} and not study.is_done()
    end(study, held[0])
    end(study, held[1], TrialState.PRUNED, 0.25)
    end(study, held[2], TrialState.FAIL, None)
    assert counts() == {"RUNNING": 1, "COMPLETE": 1, "PRUNED": 1, "FAIL": 1} and not study.is_done()
    study.queue.requeue([held[3]])
    assert counts()["WAITING"] == 1 and not study.is_done()
    end(study, claim(study))
    assert counts() == {"COMPLETE": 2, "PRUNED": 1, "FAIL": 1} and study.is_done()


def test_a_sampled_study_is_done_when_its_budget_is_spent(database: Database) -> None:
    space = {"weight_decay": Range(low=0.0, high=1.0)}
    study = create_study(database, "study", make_spec(space=space, sampler="random", budget=Budget(trials=1)))
    assert states(study) == [] and not study.is_done() and not read_status(study).done
    read_back(study).add_trial(optuna.create_trial(value=0.5))
    assert study.is_done() and read_status(study).done


def test_status_of_a_trial_in_a_lane(study: Study) -> None:
    lease = claim(study, worker="a-machine:7")
    study.queue.report([Heartbeat(lease, 8, 12.5)], {lease: {4: 0.25, 8: 0.5}}, SECONDS)
    [running] = read_status(study).running
    assert (running.number, running.worker, running.epoch, running.curve) == (0, "a-machine:7", 8, (0.25, 0.5))
    assert running.params == read_back(study).trials[0].params
    assert 0 <= running.silent_seconds < 30
    status = read_status(study)
    assert status.epochs_per_second == 12.5
    # 40 epochs of this trial and 48 of each of the 23 that wait.
    assert status.seconds_left == pytest.approx((40 + 23 * 48) / 12.5)


def test_after_an_outage_workers_have_a_period_to_come_back(database: Database, logged: list[str]) -> None:
    """The start time of the server says nothing about a recovery, a failover, or a network failure."""
    study = create_study(database, "study", make_spec(lease_seconds=2.0))
    lease = claim(study, OVERDUE)
    stop, failures = threading.Event(), 0

    def fail(*_: object) -> None:
        nonlocal failures
        failures += 1
        if failures <= 2:
            raise sa.exc.OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))

    sa.event.listen(database.engine, "begin", fail)
    supervising = threading.Thread(target=supervise, args=(study, stop))
    try:
        supervising.start()
        wait_until(lambda: len(logged) == 3)
    finally:
        stop.set()
        supervising.join(600)
        sa.event.remove(database.engine, "begin", fail)
    assert [line.partition(" (")[0] for line in logged[:1]] == ["the database does not answer"]
    assert logged[1].startswith("the database is back")
    assert logged[2] == f"trial {lease.number} went back to the queue: its worker was silent for 2 s"


def test_supervise_ends_with_the_study(database: Database, logged: list[str]) -> None:
    study = create_study(database, "study", make_spec(budget=Budget(trials=1), lease_seconds=1.0))
    lease = claim(study, OVERDUE)
    looks: list[int] = []
    stop = threading.Event()
    actions: list[Callable[[], Any]] = [lambda: end(study, claim(study)), lambda: None]

    def on_poll() -> None:
        looks.append(1)
        actions[len(looks) - 1]()

    assert supervise(study, stop, on_poll)
    assert [line for line in logged if f"trial {lease.number} went back to the queue" in line] == logged != []
    stop.set()
    assert not supervise(study, stop)
