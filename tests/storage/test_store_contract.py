"""The contract of `StudyStore` and `StudyCatalog`, on SQLite, PostgreSQL and the fake in memory."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.overrides import to_tree
from miiii_search.config.search_space import Point
from miiii_search.errors import DuplicateStudyError, StudyDeletedError
from miiii_search.storage import archive_rows
from miiii_search.storage.archive_rows import ArchiveError
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES, STUDY_ARTIFACT_PREFIX, Artifact
from miiii_search.storage.records import NewTrial, StudyContents
from miiii_search.storage.retry import is_outage
from miiii_search.storage.study_attrs import CREATED_KEY, ID_KEY, PAUSED_KEY, SPEC_KEY, STARTED_KEY
from miiii_search.storage.study_catalog import StudyCatalog
from miiii_search.storage.study_store import StudyStore
from miiii_search.storage.study_transaction import StudyTransaction
from miiii_search.storage.trial_attrs import REPLICATE_KEY, SHAPE_KEY
from miiii_search.study.best_trials import best_trial, read_best, read_best_trials, sort_best_first
from miiii_search.study.create import create_study
from miiii_search.study.study import Study
from miiii_search.study.trials import distributions, new_trial, shape_of
from miiii_search.testing.memory_study_catalog import MemoryStudyCatalog, create_memory_study
from miiii_search.testing.memory_study_store import MemoryStudyStore, MemoryStudyTransaction
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from tests.backends import NOW, Backend, MemoryBackend, SqlBackend
from tests.support import make_spec

COMPLETE, FAIL, PRUNED, RUNNING, WAITING = (
    TrialState.COMPLETE,
    TrialState.FAIL,
    TrialState.PRUNED,
    TrialState.RUNNING,
    TrialState.WAITING,
)
SPACE = {"weight_decay": (0.0, 0.5, 1.0), "n_heads": (2, 4)}
SPEC = make_spec(space=SPACE, budget={"solved": 100, "device_hours": 9.0})
SHAPES = [shape_of(SPEC.hyperparameters.d_model, heads) for heads in (2, 4)]
PERIOD = 60.0
FILE = "00000000-0000-4000-8000-00000000000"
"""An artifact's id without its last digit."""


class Subject:
    """A study of six trials of two shapes, its store, and the catalog of its database."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.study = self.create("study")
        self.store: StudyStore = self.study.store
        self.catalog: StudyCatalog = self.study.database.studies
        self.ids = [trial._trial_id for trial in self.store.read_all_trials()]

    def create(self, name: str) -> Study:
        if isinstance(self.backend, SqlBackend):
            return create_study(self.backend.database, name, SPEC)
        return create_memory_study(cast(MemoryBackend, self.backend).database, name, SPEC)

    def claim(self, n: int = 1) -> list[Lease]:
        leases = self.study.queue.claim("worker", PERIOD, n=n)
        assert len(leases) == n
        return leases

    def end(self, value: float | None, state: TrialState = COMPLETE, **attributes: Any) -> Lease:
        """Claim the next trial and end it."""
        [lease] = self.claim()
        self.finish(lease, value, state, **attributes)
        return lease

    def finish(
        self, lease: Lease, value: float | None, state: TrialState = COMPLETE, data: bytes = b"", **known: Any
    ) -> None:
        files = [Artifact("curves.png", data)] if data else []
        result = TrialResult(state, value, "ended.", known, files)
        assert self.study.queue.finish(Heartbeat(lease, 8, 1.0), result) == FinishStatus.WRITTEN

    def report(self, lease: Lease, reports: dict[int, float]) -> None:
        self.study.queue.report([Heartbeat(lease, max(reports), 2.0)], {lease: reports}, PERIOD)

    def delete(self) -> None:
        with self.store.transaction() as tx:
            tx.lock()
            tx.delete_study()

    @contextmanager
    def locked(self) -> Iterator[StudyTransaction]:
        with self.store.transaction() as tx:
            tx.lock()
            yield tx


@pytest.fixture
def subject(backend: Backend) -> Subject:
    return Subject(backend)


def public(kind: type) -> list[str]:
    """Return the names of a class's public methods."""
    return [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (StudyStore, MemoryStudyStore),
        (StudyTransaction, MemoryStudyTransaction),
        (StudyCatalog, MemoryStudyCatalog),
    ],
)
def test_the_fake_overrides_every_public_method(real: type, fake: type) -> None:
    for name in public(real):
        method = getattr(fake, name)
        assert method.__module__.startswith("miiii_search.testing."), name
        assert inspect.signature(method).parameters.keys() == inspect.signature(getattr(real, name)).parameters.keys()


@pytest.mark.parametrize("kind", [StudyStore, StudyTransaction, StudyCatalog])
def test_every_docstring_says_what_a_second_call_does_and_what_it_raises(kind: type) -> None:
    for name in set(public(kind)) - {"deleted_error", "store"}:
        text = inspect.getdoc(getattr(kind, name)) or ""
        assert "Raises:" in text, name
        assert any(word in text for word in ("twice", "again", "once", "second")), name


# Attributes


def test_attributes_come_back_as_json(subject: Subject) -> None:
    with subject.locked() as tx:
        tx.write_attributes({"a": (1, 2), "b": {"ä": None}})
        assert tx.read_attributes("a", "b", "missing") == {"a": [1, 2], "b": {"ä": None}}
        tx.write_attributes({"a": "new"})
        tx.write_attributes({"a": "new"})
        tx.remove_attributes(["b", "missing"])
        tx.remove_attributes(["b"])
    assert subject.store.read_attributes("a", "b") == {"a": "new"}
    assert subject.store.read_attributes() == {}


def test_an_exception_undoes_everything(subject: Subject) -> None:
    before = subject.backend.contents()
    with pytest.raises(ZeroDivisionError), subject.locked() as tx:
        tx.write_attributes({"a": 1})
        tx.insert_trials([new_trial(SPEC, {"weight_decay": 0.5, "n_heads": 2}, 7)], distributions(SPEC), WAITING)
        tx.delete_study()
        raise ZeroDivisionError
    assert subject.backend.contents() == before


def test_a_deleted_study(subject: Subject) -> None:
    subject.end(0.5, data=b"123")
    subject.claim()
    subject.delete()
    store = subject.store
    for read in (store.read_all_trials, lambda: store.read_trials(subject.ids)):
        with pytest.raises(StudyDeletedError, match="study `study` was deleted"):
            read()
    for write in (lambda: store.write_note("x"), subject.delete):
        with pytest.raises(StudyDeletedError, match="study `study` was deleted"):
            write()
    assert store.read_attributes(SPEC_KEY) == {}
    assert store.find_trial(0) is None and not store.has_trials()
    assert set(store.count_trials().values()) == {0}
    assert not (store.read_finished_ids() or store.read_best_first_replicates(9) or store.read_pruned_trials())
    assert not (store.read_points() or store.read_finished_trials({}) or store.count_parameter_values())
    assert store.mean_epochs_trained() is None
    assert store.read_running_trials() == ([], False)
    assert store.read_known_trials(9).waiting == [] and store.read_peer_reports({8}).finished == {}
    assert store.read_counts().oldest_lease_seconds == 0 and store.read_usage().solved == 0
    assert store.read_contents() == StudyContents(0, 0, 0, 0, 0)
    assert not (store.linked_artifact_ids() or store.find_attachments(subject.ids) or store.read_checkpoints())
    assert store.read_rows()["trials"] == []
    assert store.ensure_id("0" * 32) is None
    left = subject.backend.contents()
    assert not (left.studies or left.trials or left.leases or left.artifacts or left.device_time)


def test_a_later_study_with_the_same_name_is_another(subject: Subject) -> None:
    subject.delete()
    subject.backend.now += 1
    again = subject.create("study")
    with pytest.raises(StudyDeletedError), subject.store.transaction() as tx:
        tx.lock()
    assert again.store.write_note("Mine.")
    assert not subject.store.identity.is_in(again.store.read_attributes(CREATED_KEY, ID_KEY))


def test_deletions_are_recorded_until_the_name_is_used_again(subject: Subject) -> None:
    assert subject.catalog.deletion_error("study") is None
    subject.catalog.record_deletion("study")  # the study exists
    assert subject.catalog.read_deletions() == {}
    subject.delete()
    subject.backend.now += 60
    subject.catalog.record_deletion("study")  # recorded already
    assert subject.catalog.read_deletions() == {"study": datetime.fromtimestamp(NOW, UTC)}
    assert "was deleted on 2033-05-18 at 03:33 UTC" in str(subject.catalog.deletion_error("study"))
    subject.catalog.record_deletion("another")
    assert list(subject.catalog.read_deletions()) == ["another", "study"]
    subject.create("study")
    assert list(subject.catalog.read_deletions()) == ["another"]


def test_an_id_is_given_once(subject: Subject) -> None:
    subject.backend.write_attributes(subject.study.study_id, {ID_KEY: None})
    assert [subject.store.ensure_id(digit * 32) for digit in "12"] == ["1" * 32] * 2
    assert subject.store.read_attributes(ID_KEY) == {ID_KEY: "1" * 32}


def test_a_note_that_a_user_edited_stays(subject: Subject) -> None:
    def note() -> str:
        study = subject.backend.contents().studies[subject.study.study_id]
        chunks = {k: v for k, v in study.system_attributes.items() if k.startswith("dashboard:note_str:")}
        return "".join(chunks[key] for key in sorted(chunks))

    assert subject.store.write_note("long " * 1000)
    assert subject.store.write_note("short") and subject.store.write_note("short")
    assert note() == "short"
    subject.backend.write_attributes(subject.study.study_id, {"dashboard:note_ver": 2})
    assert not subject.store.write_note("mine")
    assert note() == "short"


# Trials


def test_new_trials_are_numbered_after_the_others(subject: Subject) -> None:
    points: list[Point] = [{"weight_decay": 0.5, "n_heads": 4}, {}]
    with subject.locked() as tx:
        first = tx.insert_trials(
            [new_trial(SPEC, points[0], 1), NewTrial({}, {REPLICATE_KEY: 2})], distributions(SPEC), WAITING
        )
        second = tx.insert_trials([new_trial(SPEC, points[0], 3)], distributions(SPEC), RUNNING)
    assert [trial.number for trial in (*first, *second)] == [6, 7, 8]
    trials = subject.store.read_all_trials()
    assert [trial.number for trial in trials] == list(range(9))
    assert [trial.params for trial in trials[6:]] == [points[0], {}, points[0]]
    assert trials[6].distributions == {name: distributions(SPEC)[name] for name in points[0]}
    assert trials[6].system_attrs == {SHAPE_KEY: SHAPES[1], REPLICATE_KEY: 1}
    assert [trial.state for trial in trials[6:]] == [WAITING, WAITING, RUNNING]
    assert subject.store.read_points()[first[1].trial_id] == ({}, 2)
    assert subject.store.read_points_by_id([first[0].trial_id, first[1].trial_id, 10**6]) == {
        first[0].trial_id: points[0]
    }


def test_single_trials(subject: Subject) -> None:
    store = subject.store
    assert [store.find_trial(number) for number in (0, 5, 6)] == [subject.ids[0], subject.ids[5], None]
    found = store.read_trials([subject.ids[2], 10**6])
    assert list(found) == [subject.ids[2]] and isinstance(found[subject.ids[2]], FrozenTrial)
    assert store.read_trials([]) == {}
    assert store.read_numbers([subject.ids[3], subject.ids[1], 10**6]) == [1, 3]
    assert store.has_trials()


def test_counts_and_the_oldest_lease(subject: Subject) -> None:
    assert subject.store.count_trials() == dict.fromkeys(TrialState, 0) | {WAITING: 6}
    assert subject.store.read_counts().oldest_lease_seconds == 0
    subject.claim()
    subject.backend.now += 7
    subject.end(None, FAIL)
    subject.claim()
    counts = subject.store.read_counts()
    assert counts.counts == dict.fromkeys(TrialState, 0) | {WAITING: 3, RUNNING: 2, FAIL: 1}
    assert counts.oldest_lease_seconds == pytest.approx(7)


def test_the_best_come_first(subject: Subject) -> None:
    """Complete before pruned before failed; infinite values; of equal values the lower number; no value counts as 0."""
    values = [0.5, math.inf, 0.75, -math.inf, 0.0, 0.75, -0.25]
    ended = [(COMPLETE, value) for value in values] + [(PRUNED, -1.0), (PRUNED, 9.0), (FAIL, None)]
    ids = [subject.backend.add_elsewhere(subject.study.study_id, state, value) for state, value in ended]
    subject.claim()
    expected = [ids[k] for k in (1, 2, 5, 0, 4, 6, 3, 8, 7, 9)]
    trials = subject.store.read_all_trials()
    assert [trial._trial_id for trial in sort_best_first(trials)] == expected
    assert subject.store.read_finished_ids() == expected
    assert subject.store.read_finished_ids(2) == expected[:2]
    assert subject.store.read_finished_ids(99, complete=True) == expected[:7]
    assert [trial._trial_id for trial in read_best_trials(subject.study, 3, complete=True)] == expected[:3]
    best = best_trial(trials)
    assert best is not None and best == read_best(subject.study) and best._trial_id == ids[1]
    assert subject.store.read_best_first_replicates(9) == []


def test_only_first_replicates_are_compared(subject: Subject) -> None:
    with subject.locked() as tx:
        new = new_trial(SPEC, {"weight_decay": 0.5, "n_heads": 4}, 1)
        [later] = tx.insert_trials([new], distributions(SPEC), WAITING)
    leases = subject.claim(7)
    for lease in leases:
        subject.finish(lease, 2.0 if lease.trial_id == later.trial_id else lease.number / 10)
    assert [trial.number for trial in subject.store.read_best_first_replicates(3)] == [5, 4, 3]


def test_finished_trials_are_read_once(subject: Subject) -> None:
    subject.end(1.5, epochs_to_solve=12, epochs_trained=12)
    subject.end(None, FAIL, epochs_trained=None)
    first = subject.store.read_finished_trials({})
    trial = first[subject.ids[0]]
    assert (trial.number, trial.state, trial.value, trial.solved_at) == (0, COMPLETE, 1.5, 12)
    assert trial.params == subject.store.read_all_trials()[0].params
    assert first[subject.ids[1]].value is None and first[subject.ids[1]].epochs_to_solve is None
    subject.end(math.inf, PRUNED, epochs_trained=24)
    known = {subject.ids[0]: replace(trial, value=-1.0), 10**6: trial}
    again = subject.store.read_finished_trials(known)
    assert again.keys() == set(subject.ids[:3])
    assert again[subject.ids[0]].value == -1.0 and again[subject.ids[2]].value == math.inf
    assert subject.store.mean_epochs_trained() == 18


def test_pruned_trials_in_the_order_of_their_ends(subject: Subject) -> None:
    leases = subject.claim(3)
    for k in (2, 0, 1):
        subject.finish(leases[k], 0.1, PRUNED, epochs_trained=k, reason=f"reason {k}")
        if isinstance(subject.backend, MemoryBackend):
            subject.backend.now += 1
    found = subject.store.read_pruned_trials()
    assert [(trial.number, trial.epoch, trial.reason) for trial in found] == [
        (2, 2, "reason 2"),
        (0, 0, "reason 0"),
        (1, 1, "reason 1"),
    ]
    assert subject.store.read_pruned_trials(2) == found[1:]
    assert subject.store.read_pruned_trials(9) == found


def test_values_of_parameters_among_the_finished(subject: Subject) -> None:
    assert subject.store.count_parameter_values() == {}
    with subject.locked() as tx:
        for heads in (2, 4):
            new = NewTrial({"n_heads": heads, "weight_decay": 0.5}, {})
            tx.insert_trials([new], distributions(SPEC), COMPLETE)
    assert subject.store.count_parameter_values() == {"n_heads": 2, "weight_decay": 1}
    with subject.locked() as tx:
        tx.insert_trials([NewTrial({"n_heads": 2}, {})], distributions(SPEC), PRUNED)
    assert subject.store.count_parameter_values() == {"n_heads": 2, "weight_decay": 2}


def test_running_trials_show_their_leases(subject: Subject) -> None:
    assert subject.store.read_running_trials() == ([], False)
    [lease, other] = subject.claim(2)
    subject.report(lease, {8: 0.25, 4: 0.125})
    subject.backend.now += 5
    running, is_trained = subject.store.read_running_trials()
    assert is_trained and [trial.number for trial in running] == [lease.number, other.number]
    first = running[0]
    assert (first.worker, first.epoch, first.epochs_per_second, first.saved_epoch) == ("worker", 8, 2.0, 0)
    assert first.curve == (0.125, 0.25) and first.silent_seconds == pytest.approx(5)
    assert first.params == subject.store.read_points()[lease.trial_id][0]
    subject.backend.now += 2 * PERIOD
    assert not subject.store.read_running_trials()[1]


def test_trials_that_a_sampler_knows(subject: Subject) -> None:
    subject.end(0.5)
    failed = subject.end(None, FAIL)
    [running, back] = subject.claim(2)
    subject.study.queue.requeue([back])
    subject.backend.add_elsewhere(subject.study.study_id, WAITING)
    known = subject.store.read_known_trials(9)
    assert known.finished == {subject.ids[0]: 0.5, failed.trial_id: None} and known.running == [running.trial_id]
    assert [trial.trial_id for trial in known.waiting] == [back.trial_id, *subject.ids[4:]]
    assert [trial.was_started for trial in known.waiting] == [True, False, False]
    assert {trial.shape for trial in known.waiting} <= set(SHAPES) and known.waiting[0].replicate == 0
    assert len(subject.store.read_known_trials(1).waiting) == 1
    fit = subject.store.read_known_trials(9, SHAPES[:1]).waiting
    assert [trial for trial in known.waiting if trial.shape == SHAPES[1]] == fit


def test_reports_that_a_pruner_compares(subject: Subject) -> None:
    [done, running, silent] = subject.claim(3)
    subject.report(done, {4: 0.25, 8: 0.5, 12: math.nan})
    subject.report(running, {4: 0.125, 12: math.inf})
    subject.finish(done, 0.5)
    subject.finish(silent, None, FAIL)
    found = subject.store.read_peer_reports({4})
    assert found.finished == {done.trial_id: COMPLETE, silent.trial_id: FAIL}
    assert found.last[silent.trial_id] == {} and math.isnan(found.last[done.trial_id][12])
    expected = [(done.trial_id, COMPLETE, 4, 0.25), (running.trial_id, RUNNING, 4, 0.125)]
    assert sorted(found.at_epochs) == sorted(expected)
    again = subject.store.read_peer_reports({12}, known={done.trial_id})
    assert again.last == {silent.trial_id: {}}
    assert (running.trial_id, RUNNING, 12, math.inf) in again.at_epochs


def test_a_new_distribution_keeps_the_values(subject: Subject) -> None:
    old = distributions(SPEC)["weight_decay"]
    before = [trial.params for trial in subject.store.read_all_trials()]
    new = CategoricalDistribution((1.0, 0.25, 0.5, 0.0))
    for _ in range(2):
        with subject.locked() as tx:
            tx.rewrite_distribution("weight_decay", old, new)
    trials = subject.store.read_all_trials()
    assert [trial.params for trial in trials] == before
    assert {trial.distributions["weight_decay"] for trial in trials} == {new}
    assert {trial.distributions["n_heads"] for trial in trials} == {distributions(SPEC)["n_heads"]}


def test_usage_of_the_budget(subject: Subject) -> None:
    study_id = subject.study.study_id
    subject.end(1.5, epochs_to_solve=8)
    subject.end(0.5, epochs_to_solve=None)
    subject.study.queue.reserve_device_time("holder", 0.0, lambda _: 30.0)
    subject.backend.write_attributes(study_id, {STARTED_KEY: NOW - 100})
    usage = subject.store.read_usage()
    assert (usage.solved, usage.device_seconds) == (1, 30.0)
    assert usage.wall_seconds == pytest.approx(100)
    subject.backend.write_attributes(study_id, {PAUSED_KEY: NOW - 40})
    assert subject.catalog.read_usage(study_id).wall_seconds == pytest.approx(60)


# Artifacts


def attach(subject: Subject, digit: int, data: bytes, trial_id: int) -> None:
    with subject.locked() as tx:
        tx.write_artifact(f"{FILE}{digit}", data)
        tx.write_attributes({f"{STUDY_ARTIFACT_PREFIX}{trial_id}:{FILE}{digit}": "{}"})


def test_artifacts_of_trials(subject: Subject) -> None:
    [kept, cleaned] = [subject.end(0.5, data=b"x" * 10), subject.end(0.25, data=b"y" * 5)]
    attach(subject, 1, b"later", cleaned.trial_id)
    attach(subject, 2, b"another", kept.trial_id)
    store = subject.store
    assert len(store.linked_artifact_ids()) == 4
    assert store.read_artifact(f"{FILE}1") == b"later" and store.has_artifact(f"{FILE}1")
    assert store.read_artifact(f"{FILE}9") is None and not store.has_artifact(f"{FILE}9")
    [attachment] = store.find_attachments([cleaned.trial_id])
    assert (attachment.trial_id, attachment.artifact_id) == (cleaned.trial_id, f"{FILE}1")
    found = store.find_artifacts([cleaned.trial_id])
    assert found.trial_ids == frozenset({cleaned.trial_id})
    assert (len(found.artifact_ids), found.size) == (2, 10)
    assert store.read_contents().artifacts == 4 and store.read_contents().size == 10 + 5 + 5 + 7
    revision = subject.catalog.read_revisions()[subject.study.study_id]
    with subject.locked() as tx:
        assert tx.delete_artifacts([cleaned.trial_id]) == found
        assert tx.delete_artifacts([cleaned.trial_id]).artifact_ids == ()
    assert subject.catalog.read_revisions()[subject.study.study_id] != revision
    assert set(found.artifact_ids).isdisjoint(store.linked_artifact_ids())
    assert len(store.linked_artifact_ids()) == 2 and not store.has_artifact(f"{FILE}1")
    with subject.locked() as tx:
        tx.delete_attachments(tx.find_attachments([kept.trial_id]))
        tx.delete_attachments([attachment])
    assert len(store.linked_artifact_ids()) == 1 and not store.has_artifact(f"{FILE}2")


def test_an_artifact_that_is_too_large(subject: Subject) -> None:
    with pytest.raises(ValueError, match="at most"), subject.locked() as tx:
        tx.write_artifact(f"{FILE}1", bytes(MAX_ARTIFACT_BYTES + 1))
    assert not subject.store.has_artifact(f"{FILE}1")


# The catalog


def test_studies_by_name(subject: Subject) -> None:
    other = subject.create("another")
    assert subject.catalog.names() == ["another", "study"]
    assert subject.catalog.find("another") == other.study_id and subject.catalog.find("third") is None
    assert subject.catalog.find_or_insert("study") == (subject.study.study_id, True)
    inserted = subject.catalog.find_or_insert("third")
    assert inserted is not None and subject.catalog.find_or_insert("third") == inserted
    assert sorted(subject.catalog.read_attribute(ID_KEY)) == sorted([str(other.id), str(subject.study.id)])
    with subject.catalog.reading() as reader:
        assert reader.names() == ["another", "study", "third"]


def test_one_row_per_study(subject: Subject) -> None:
    subject.create("another")
    subject.end(0.5)
    subject.end(0.75)
    subject.end(5.0, PRUNED)
    subject.claim()
    [other, row] = subject.catalog.read_rows([SPEC_KEY, PAUSED_KEY])
    assert (row.study_id, row.name, row.best, row.is_trained) == (subject.study.study_id, "study", 0.75, True)
    assert row.attributes.keys() == {SPEC_KEY} and row.attributes[SPEC_KEY]["format"] == to_tree(SPEC)["format"]
    assert row.counts == dict.fromkeys(TrialState, 0) | {COMPLETE: 2, PRUNED: 1, RUNNING: 1, WAITING: 2}
    assert row.first_start is not None and row.first_start.tzinfo == UTC
    assert (other.best, other.first_start, other.is_trained, other.counts[WAITING]) == (None, None, False, 6)
    subject.backend.now += 2 * PERIOD
    assert not subject.catalog.read_rows([])[1].is_trained
    [abandoned] = subject.catalog.find_abandoned()
    assert (abandoned.study_id, abandoned.number) == (subject.study.study_id, 3)
    assert [abandoned] == subject.study.queue.find_abandoned() == subject.store.find_abandoned()


def test_a_study_is_inserted_completely_or_not_at_all(subject: Subject) -> None:
    with pytest.raises(DuplicateStudyError, match="a study `study` already"), subject.catalog.insert("study"):
        raise AssertionError("not reached")
    with pytest.raises(ZeroDivisionError), subject.catalog.insert("new") as tx:
        tx.write_attributes({"a": 1})
        raise ZeroDivisionError
    assert subject.catalog.names() == ["study"]


def test_rows_of_an_archive_come_back(subject: Subject) -> None:
    """A study that is inserted from the rows of another has the same rows, but for ids."""
    subject.end(math.inf, epochs_to_solve=4, text="ä")
    [lease] = subject.claim()
    subject.report(lease, {4: math.nan, 8: 0.5})
    subject.study.queue.share_checkpoint(Heartbeat(lease, 8, 1.0), 8, b"saved", PERIOD)
    subject.study.queue.reserve_device_time("holder", 0.0, lambda _: 30.0)
    with subject.store.snapshot() as reader:
        rows = reader.read_rows()
        [saved] = reader.read_checkpoints()
        data = reader.read_checkpoint_data(saved.trial_id)
    assert (saved.trial_id, saved.epoch, data) == (lease.trial_id, 8, b"saved")
    assert [row["state"] for row in rows["trials"]] == ["COMPLETE"] + ["WAITING"] * 5
    with subject.catalog.insert("copy") as tx:
        new_ids = tx.insert_archived_trials(rows["trials"])
        for table in (*archive_rows.STUDY_TABLES, archive_rows.DEVICE_TIME):
            tx.insert_archived_rows(table, rows["study"][table], new_ids)
        for table in archive_rows.TRIAL_TABLES:
            tx.insert_archived_rows(table, rows["of_trials"][table], new_ids)
        tx.insert_checkpoint(new_ids[saved.trial_id], saved.epoch, data)
        copied = tx.read_rows()
    assert copied["exported_at"] == rows["exported_at"] == NOW

    def plain(tree: dict[str, Any], trial_ids: dict[int, int]) -> dict[str, Any]:
        def sort(found: list[dict[str, Any]]) -> list[str]:
            known = [{**row, "trial_id": trial_ids.get(row.get("trial_id", 0))} for row in found]
            return sorted(repr(sorted(row.items(), key=str)) for row in known)

        parts = {"trials": tree["trials"], **tree["study"], **tree["of_trials"]}
        return {table: sort(found) for table, found in parts.items()}

    assert plain(copied, {new: new for new in new_ids.values()}) == plain(rows, new_ids)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"number": 7}, ArchiveError),
        ({"state": "NONE"}, KeyError),
        ({"state": None}, ArchiveError),
    ],
)
def test_rows_that_are_not_valid_are_refused(subject: Subject, change: dict[str, Any], error: type[Exception]) -> None:
    rows = subject.store.read_rows()["trials"]
    rows[1] |= change
    with pytest.raises(error), subject.catalog.insert("copy") as tx:
        tx.insert_archived_trials(rows)
    assert subject.catalog.names() == ["study"]


# Outages


READS: dict[str, Callable[[Subject], Any]] = {
    "read_attributes": lambda s: s.store.read_attributes(SPEC_KEY),
    "now": lambda s: s.store.now(),
    "find_trial": lambda s: s.store.find_trial(0),
    "count_trials": lambda s: s.store.count_trials(),
    "has_trials": lambda s: s.store.has_trials(),
    "read_finished_ids": lambda s: s.store.read_finished_ids(),
    "read_numbers": lambda s: s.store.read_numbers(s.ids),
    "read_best_first_replicates": lambda s: s.store.read_best_first_replicates(1),
    "read_points": lambda s: s.store.read_points(),
    "read_points_by_id": lambda s: s.store.read_points_by_id(s.ids),
    "read_finished_trials": lambda s: s.store.read_finished_trials({}),
    "read_pruned_trials": lambda s: s.store.read_pruned_trials(),
    "count_parameter_values": lambda s: s.store.count_parameter_values(),
    "mean_epochs_trained": lambda s: s.store.mean_epochs_trained(),
    "read_running_trials": lambda s: s.store.read_running_trials(),
    "read_known_trials": lambda s: s.store.read_known_trials(1),
    "read_peer_reports": lambda s: s.store.read_peer_reports({1}),
    "read_usage": lambda s: s.store.read_usage(),
    "read_counts": lambda s: s.store.read_counts(),
    "read_contents": lambda s: s.store.read_contents(),
    "linked_artifact_ids": lambda s: s.store.linked_artifact_ids(),
    "find_attachments": lambda s: s.store.find_attachments(s.ids),
    "find_artifacts": lambda s: s.store.find_artifacts(s.ids),
    "has_artifact": lambda s: s.store.has_artifact(FILE),
    "read_artifact": lambda s: s.store.read_artifact(FILE),
    "read_rows": lambda s: s.store.read_rows(),
    "read_checkpoints": lambda s: s.store.read_checkpoints(),
    "write_note": lambda s: s.store.write_note("x"),
    "ensure_id": lambda s: s.store.ensure_id("0" * 32),
    "names": lambda s: s.catalog.names(),
    "overview": lambda s: s.catalog.read_rows([]),
    "read_attribute": lambda s: s.catalog.read_attribute(ID_KEY),
    "catalog_usage": lambda s: s.catalog.read_usage(s.study.study_id),
    "find_abandoned": lambda s: s.catalog.find_abandoned(),
    "find_abandoned_of_study": lambda s: s.store.find_abandoned(),
    "read_revisions": lambda s: s.catalog.read_revisions(),
    "read_deletions": lambda s: s.catalog.read_deletions(),
    "deletion_error": lambda s: s.catalog.deletion_error("study"),
    "record_deletion": lambda s: s.catalog.record_deletion("study"),
}


@pytest.mark.parametrize("name", READS)
def test_an_outage_is_reported_and_nothing_changes(subject: Subject, name: str) -> None:
    before = subject.backend.contents()
    with subject.backend.outage(), pytest.raises(Exception) as caught:
        READS[name](subject)
    assert is_outage(caught.value)
    assert subject.backend.contents() == before


def test_an_answer_that_is_lost_leaves_what_was_written(subject: Subject) -> None:
    with subject.backend.losing_answers(), pytest.raises(Exception) as caught, subject.locked() as tx:
        tx.write_attributes({"a": 1})
    assert is_outage(caught.value)
    assert subject.store.read_attributes("a") == {"a": 1}
