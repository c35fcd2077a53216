"""The contract of `TrialQueue`, on SQLite, PostgreSQL and the fake in memory."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from optuna.trial import TrialState

from miiii_search.config.search_space import Point
from miiii_search.config.study_spec import StudySpec
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES, Artifact
from miiii_search.storage.retry import is_outage
from miiii_search.storage.study_attrs import ID_KEY, PAUSED_KEY, SPEC_KEY, STARTED_KEY
from miiii_search.storage.trial_attrs import REPLICATE_KEY, SHAPE_KEY
from miiii_search.storage.usage import Usage
from miiii_search.study.trials import distributions, new_trial, shape_of
from miiii_search.testing.memory_database import MemoryTrial
from miiii_search.testing.memory_trial_queue import MemoryTrialQueue
from miiii_search.trial_queue._device_time import TOLERANCE_SECONDS, ReservedTime
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from miiii_search.trial_queue.trial_queue import TrialQueue
from tests.backends import Backend
from tests.support import make_spec

SPACE = {"weight_decay": (0.0, 0.5, 1.0), "n_heads": (2, 4)}
PERIOD = 10.0
"""Seconds of a lease."""
COMPLETE, FAIL, PRUNED, RUNNING, WAITING = (
    TrialState.COMPLETE,
    TrialState.FAIL,
    TrialState.PRUNED,
    TrialState.RUNNING,
    TrialState.WAITING,
)


class Subject:
    """A study of six trials of two shapes, and its queue."""

    def __init__(self, backend: Backend, name: str = "study") -> None:
        self.backend = backend
        self.spec: StudySpec = make_spec(space=SPACE)
        self.study_id = backend.create(name, self.spec)
        self.queue = backend.queue(self.study_id)

    def claim(self, seconds: float = PERIOD, worker: str = "worker") -> Lease:
        """Claim a trial that must be there."""
        [lease] = self.queue.claim(worker, seconds)
        return lease

    def claim_new(self, attributes: Mapping[str, Any] | None = None, n_trials: int = 6) -> Lease | None:
        """Add a trial that is leased."""
        point: Point = {"weight_decay": 0.5, "n_heads": 4}
        return self.queue.claim_new_trial(
            new_trial(self.spec, point, 1),
            distributions(self.spec),
            "worker",
            PERIOD,
            n_trials=n_trials,
            attributes=attributes or {},
        )

    def finish(self, lease: Lease, value: float | None = 0.5, state: TrialState = COMPLETE, **known: Any) -> Any:
        """End a trial."""
        return self.queue.finish(Heartbeat(lease, 1, 1.0), ended(state, value, **known))

    def trials(self) -> list[MemoryTrial]:
        return self.backend.contents().trials_of(self.study_id)

    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.trials()]

    def tokens(self) -> dict[int, str]:
        """Return the token of each lease by trial id."""
        rows = self.backend.contents().leases.values()
        return {row.trial_id: row.token for row in rows if row.study_id == self.study_id}

    def attributes(self) -> Mapping[str, Any]:
        return self.backend.contents().studies[self.study_id].system_attributes

    def pause(self) -> None:
        self.backend.write_attributes(self.study_id, {PAUSED_KEY: self.backend.now})


def ended(state: TrialState = COMPLETE, value: float | None = 0.5, **fields: Any) -> TrialResult:
    """Return a result with little in it."""
    return TrialResult(**{"state": state, "value": value, "note": "ended.", "attributes": {}, "artifacts": []} | fields)


def beats(*leases: Lease, epoch: int = 1) -> list[Heartbeat]:
    return [Heartbeat(lease, epoch, 1.0) for lease in leases]


@pytest.fixture
def subject(backend: Backend) -> Subject:
    return Subject(backend)


# The fake


def public_methods(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


def test_the_fake_overrides_every_public_method() -> None:
    assert public_methods(TrialQueue) == public_methods(MemoryTrialQueue) & set(vars(MemoryTrialQueue))
    for name in public_methods(TrialQueue):
        real, fake = (inspect.signature(getattr(cls, name)) for cls in (TrialQueue, MemoryTrialQueue))
        assert real == fake, name


def test_every_method_says_what_happens() -> None:
    """Twice, without the lease or after the study was deleted, and while the database is away."""
    for name in public_methods(TrialQueue):
        text = " ".join((getattr(TrialQueue, name).__doc__ or "").split())
        assert "twice" in text or "A second call" in text or "a second call" in text, name
        assert "deleted" in text, name
        assert "lease" in text, name
        assert "sqlalchemy.exc.DBAPIError: The database is unavailable" in text, name


# Claims


def test_claims_follow_the_numbers(subject: Subject) -> None:
    assert [lease.number for lease in subject.queue.claim("worker", PERIOD, n=2)] == [0, 1]
    assert [lease.number for lease in subject.queue.claim("worker", PERIOD, n=9)] == [2, 3, 4, 5]  # never one twice
    assert subject.queue.claim("worker", PERIOD) == []
    assert subject.states() == [RUNNING] * 6  # no other was made


def test_a_claimed_trial_is_running_and_leased(subject: Subject) -> None:
    before = subject.trials()
    lease = subject.claim(worker="w" * 300)
    [row] = subject.backend.contents().leases.values()
    assert (row.trial_id, row.study_id, row.token) == (lease.trial_id, subject.study_id, lease.token)
    assert row.worker == "w" * 256
    assert (row.renewed_at, row.expires_at) == (subject.backend.now, subject.backend.now + PERIOD)
    assert (row.epoch, row.epochs_per_second, row.saved_epoch) == (0, 0.0, 0)
    after = subject.trials()
    assert after[1:] == before[1:]
    assert after[0].state == RUNNING and before[0].started_at is None and after[0].started_at is not None
    assert (after[0].params, after[0].system_attributes) == (before[0].params, before[0].system_attributes)
    assert len(lease.token) == 32 and lease.token != subject.claim().token


def test_claims_prefer_ids_then_shapes_then_numbers(subject: Subject) -> None:
    ids = [trial.trial_id for trial in subject.trials()]
    shapes = [trial.system_attributes[SHAPE_KEY] for trial in subject.trials()]
    assert set(shapes) == {shape_of(16, 2), shape_of(16, 4)}
    preferred = shapes[0] if shapes[1] != shapes[0] else next(shape for shape in shapes if shape != shapes[0])
    first = [5, 3]
    rest = [number for number in range(6) if number not in first]
    order = [*first, *sorted(rest, key=lambda number: (shapes[number] != preferred, number))]
    claimed = subject.queue.claim(
        "worker", PERIOD, n=6, first_ids=[ids[number] for number in first], preferred_shapes=[preferred]
    )
    assert {lease.number for lease in claimed} == set(range(6))
    # The database may return the rows of one call in any order, so that the order is seen one by one.
    subject.queue.requeue(claimed)
    one_by_one = [
        subject.queue.claim(
            "worker", PERIOD, first_ids=[ids[number] for number in first], preferred_shapes=[preferred]
        )[0].number
        for _ in range(6)
    ]
    assert one_by_one == order


def test_claims_exclude_shapes(subject: Subject) -> None:
    shapes = [trial.system_attributes[SHAPE_KEY] for trial in subject.trials()]
    claimed = subject.queue.claim("worker", PERIOD, n=6, excluded_shapes=[shape_of(16, 2)])
    assert sorted(lease.number for lease in claimed) == [k for k in range(6) if shapes[k] == shape_of(16, 4)]
    # A trial of another program has no shape, and is claimed by everyone.
    stray = subject.backend.add_elsewhere(subject.study_id, WAITING)
    shapes_of_ours = [shape_of(16, 2), shape_of(16, 4)]
    assert [lease.trial_id for lease in subject.queue.claim("worker", PERIOD, n=6, excluded_shapes=shapes_of_ours)] == [
        stray
    ]


def test_claims_take_no_trial_of_another_study(subject: Subject) -> None:
    other, third = Subject(subject.backend, "other"), Subject(subject.backend, "third")
    ids = [trial.trial_id for trial in [*subject.trials(), *third.trials()]]
    assert len(other.queue.claim("worker", PERIOD, n=99, first_ids=ids)) == 6
    for one in (subject, third):
        assert one.states() == [WAITING] * 6 and one.tokens() == {}
    assert other.states() == [RUNNING] * 6


def test_a_paused_study_hands_out_nothing(subject: Subject) -> None:
    held = subject.claim()
    subject.pause()
    assert subject.queue.claim("worker", PERIOD) == []
    assert subject.claim_new() is None
    # What runs may be reported and ended.
    assert subject.queue.report(beats(held), {held: {4: 0.5}}, PERIOD) == {held}
    assert subject.finish(held) == FinishStatus.WRITTEN
    subject.backend.write_attributes(subject.study_id, {PAUSED_KEY: None})
    assert subject.claim().number == 1


def test_a_new_trial_is_leased_from_the_beginning(subject: Subject) -> None:
    later = Subject(subject.backend, "later")
    before = subject.trials(), later.trials()
    lease = subject.claim_new()
    assert lease is not None and lease.number == 6
    trial = subject.trials()[6]
    assert (subject.trials()[:6], later.trials()) == before
    assert (trial.trial_id, trial.state) == (lease.trial_id, RUNNING) and trial.started_at is not None
    assert trial.params == {"weight_decay": 0.5, "n_heads": 4}
    assert trial.distributions == distributions(subject.spec)
    assert trial.system_attributes == {SHAPE_KEY: shape_of(16, 4), REPLICATE_KEY: 1}
    assert subject.tokens() == {lease.trial_id: lease.token}
    assert subject.queue.requeue_overdue() == []


def test_a_new_trial_is_added_only_to_the_study_that_was_read(subject: Subject) -> None:
    stored = subject.attributes()
    before = subject.trials()
    assert subject.claim_new(n_trials=5) is None and subject.claim_new(n_trials=7) is None
    assert subject.claim_new({SPEC_KEY: {**stored[SPEC_KEY], "lease_seconds": 1.0}}) is None
    assert subject.claim_new({ID_KEY: None}) is None
    assert subject.claim_new({"miiii:unknown": 1}) is None
    assert subject.trials() == before and subject.tokens() == {}
    assert subject.claim_new({SPEC_KEY: stored[SPEC_KEY], ID_KEY: stored[ID_KEY], "miiii:unknown": None})
    assert subject.claim_new() is None  # as a second call
    assert len(subject.trials()) == 7


# Leases


def test_renew_returns_the_leases_that_are_held(subject: Subject) -> None:
    mine, lost, elsewhere, late = (subject.claim() for _ in range(4))
    subject.queue.requeue([lost])
    subject.backend.end_elsewhere(elsewhere.trial_id, FAIL)
    subject.backend.now += PERIOD + 1  # overdue, but not requeued yet
    everything = [Heartbeat(lease, 7, 2.5, 4) for lease in (mine, lost, elsewhere, late)]
    for _ in range(2):
        assert subject.queue.renew(everything, PERIOD) == {mine, late}
    assert subject.queue.requeue_overdue() == []
    for lease in (mine, late):
        row = subject.backend.contents().leases[lease.trial_id]
        assert (row.epoch, row.epochs_per_second, row.saved_epoch) == (7, 2.5, 4)
        assert (row.renewed_at, row.expires_at) == (subject.backend.now, subject.backend.now + PERIOD)
    assert subject.queue.renew([], PERIOD) == set()
    assert subject.queue.renew([Heartbeat(mine, 8, 2.5)], PERIOD) == {mine}
    assert subject.backend.contents().leases[mine.trial_id].saved_epoch == 0


def test_each_lease_gets_its_own_progress(subject: Subject) -> None:
    held = subject.queue.claim("worker", PERIOD, n=6)
    assert subject.queue.renew([Heartbeat(x, 10 + x.number, 0.5 * x.number, x.number) for x in held], PERIOD) == {*held}
    rows = subject.backend.contents().leases
    assert [
        (rows[x.trial_id].epoch, rows[x.trial_id].epochs_per_second, rows[x.trial_id].saved_epoch) for x in held
    ] == [(10 + x.number, 0.5 * x.number, x.number) for x in held]


def test_leases_and_results_do_not_change() -> None:
    """They are shared by threads, and leases are keys of dictionaries."""
    lease = Lease(1, 2, "token")
    assert {lease: 1}[Lease(1, 2, "token")] == 1
    for thing in (lease, Heartbeat(lease, 1, 1.0), ended(), ReservedTime(Usage(0, 0.0, 0.0), 1.0)):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, next(iter(vars(thing))), None)


def test_a_guessed_token_is_no_lease(subject: Subject) -> None:
    lease = subject.claim()
    forged = Lease(lease.trial_id, lease.number, "0" * 32)
    before = subject.backend.contents()
    assert subject.queue.report(beats(forged), {forged: {4: 0.5}}, PERIOD) == set()
    assert subject.finish(forged) == FinishStatus.LEASE_LOST
    assert subject.queue.requeue([forged]) == []
    assert subject.backend.contents() == before


def test_reports_are_stored_once(subject: Subject) -> None:
    lease, other = subject.claim(), subject.claim()
    for _ in range(2):
        assert subject.queue.report(beats(lease, other), {lease: {4: 0.125, 8: 0.25}}, PERIOD) == {lease, other}
    assert subject.queue.report(beats(lease, other), {lease: {8: 0.5}, other: {4: math.nan, 8: math.inf}}, PERIOD)
    trials = subject.trials()
    assert trials[0].reports == {4: 0.125, 8: 0.5}
    assert math.isnan(trials[1].reports[4]) and trials[1].reports[8] == math.inf
    assert subject.queue.report(beats(other), {other: {8: -math.inf}}, PERIOD)
    assert subject.trials()[1].reports[8] == -math.inf


def test_reports_of_a_lost_lease_are_dropped(subject: Subject) -> None:
    mine, lost = subject.claim(), subject.claim()
    subject.queue.requeue([lost])
    assert subject.queue.report(beats(mine, lost), {mine: {4: 0.5}, lost: {4: 0.5}}, PERIOD) == {mine}
    assert [trial.reports for trial in subject.trials()[:2]] == [{4: 0.5}, {}]


# Results


@pytest.mark.parametrize(
    ("state", "value"),
    [(COMPLETE, 1.75), (COMPLETE, math.inf), (COMPLETE, -math.inf), (PRUNED, 0.125), (PRUNED, None), (FAIL, None)],
)
def test_finish_stores_the_result(subject: Subject, state: TrialState, value: float | None) -> None:
    lease = subject.claim()
    attributes = {"epochs_to_solve": 7, "test_accuracy": {"7": 0.5}, "none": None, "pair": (1, 2)}
    files = {"curve.png": b"\x89PNG", "record.npz": bytes(2000)}
    result = ended(
        state,
        value,
        note="solved λ = ½. " * 300,  # more than the dashboard keeps in one attribute
        attributes=attributes,
        artifacts=[Artifact(*file) for file in files.items()],
        links={"artifacts:elsewhere": "{}"},
    )
    assert subject.queue.finish(Heartbeat(lease, 7, 1.0), result) == FinishStatus.WRITTEN
    trial = subject.trials()[0]
    assert (trial.state, trial.value) == (state, value)
    assert trial.user_attributes == attributes | {"pair": [1, 2]}
    assert trial.completed_at is not None
    assert trial.system_attributes["artifacts:elsewhere"] == "{}"
    contents = subject.backend.contents()
    assert sorted(contents.artifacts.values()) == sorted(files.values())
    assert {f"artifacts:{name}" for name in contents.artifacts} < set(trial.system_attributes)
    note = "".join(
        str(subject.attributes()[f"dashboard:{lease.trial_id}:note_str:{k}"])
        for k in range(sum(f":{lease.trial_id}:note_str" in key for key in subject.attributes()))
    )
    assert note == result.note
    assert subject.tokens() == {} and subject.queue.requeue_overdue() == []


def test_a_trial_is_ended_once(subject: Subject) -> None:
    lease = subject.claim()
    assert subject.finish(lease, artifacts=[Artifact("a.png", b"a")]) == FinishStatus.WRITTEN
    before = subject.backend.contents()
    # The same lease again: the first answer may have been lost.
    assert subject.finish(lease, None, FAIL, note="two.") == FinishStatus.WRITTEN
    assert subject.backend.contents() == before
    later = subject.claim()
    subject.finish(later)
    assert subject.finish(lease) == subject.finish(later) == FinishStatus.WRITTEN


def test_a_trial_that_was_ended_elsewhere_stays_as_it_is(subject: Subject) -> None:
    lease = subject.claim()
    subject.backend.end_elsewhere(lease.trial_id, COMPLETE, 0.125)
    assert subject.finish(lease, 1.0, attributes={"a": 1}) == FinishStatus.LEASE_LOST
    trial = subject.trials()[0]
    assert (trial.value, trial.user_attributes) == (0.125, {})
    assert subject.queue.requeue_overdue() == [] and subject.queue.requeue([lease]) == []
    assert subject.states()[0] == COMPLETE


def test_an_artifact_that_is_too_large_leaves_nothing(subject: Subject) -> None:
    lease = subject.claim()
    before = subject.backend.contents()
    files = [Artifact("a.png", b"a"), Artifact("b.bin", bytes(MAX_ARTIFACT_BYTES + 1))]
    with pytest.raises(ValueError, match=f"at most {MAX_ARTIFACT_BYTES} bytes"):
        subject.finish(lease, artifacts=files)
    assert subject.backend.contents() == before
    assert subject.finish(lease) == FinishStatus.WRITTEN


def test_the_budget_of_solved_trials_is_kept(subject: Subject) -> None:
    def solve(lease: Lease, **fields: Any) -> FinishStatus:
        known: dict[str, Any] = {"attributes": {"epochs_to_solve": 8}, "is_solved": True} | fields
        return subject.queue.finish(Heartbeat(lease, 8, 1.0), ended(**known), solved_budget=1)

    pruned, unsolved, first, second, third = (subject.claim() for _ in range(5))
    assert solve(pruned, state=PRUNED, is_solved=False) == FinishStatus.WRITTEN  # does not count
    assert solve(unsolved, attributes={"epochs_to_solve": None}, is_solved=False) == FinishStatus.WRITTEN
    assert solve(first) == FinishStatus.WRITTEN
    subject.queue.share_checkpoint(Heartbeat(second, 8, 1.0), 8, b"data", PERIOD)
    assert solve(second) == FinishStatus.OVER_BUDGET
    assert solve(second) == FinishStatus.LEASE_LOST  # it is in the queue again
    trial = subject.trials()[second.number]
    assert (trial.state, trial.value, trial.user_attributes) == (WAITING, None, {})
    assert subject.queue.checkpoint_epochs([second.trial_id]) == {second.trial_id: 8}
    # A trial that is not solved may end, and there is no limit without a budget.
    assert solve(third, attributes={"epochs_to_solve": None}, is_solved=False) == FinishStatus.WRITTEN
    assert subject.claim().number == second.number
    assert subject.queue.read_usage().solved == 1
    last = subject.claim()  # by default, a trial is not solved
    assert subject.queue.finish(Heartbeat(last, 8, 1.0), ended(), solved_budget=1) == FinishStatus.WRITTEN


@pytest.mark.parametrize("is_claimed_again", [True, False])
def test_an_evicted_worker_writes_nothing(subject: Subject, is_claimed_again: bool) -> None:
    evicted = subject.claim()
    subject.queue.report(beats(evicted), {evicted: {4: 0.5}}, PERIOD)
    subject.backend.now += PERIOD + 1
    assert subject.queue.requeue_overdue() == [evicted.number]
    if is_claimed_again:
        assert subject.claim().trial_id == evicted.trial_id
    before = subject.backend.contents()
    beat = Heartbeat(evicted, 8, 1.0)
    assert subject.queue.renew([beat], PERIOD) == set()
    assert subject.queue.report([beat], {evicted: {4: 0.75, 8: 0.75}}, PERIOD) == set()
    assert subject.finish(evicted, artifacts=[Artifact("a.png", b"a")]) == FinishStatus.LEASE_LOST
    assert not subject.queue.requeue_for_retry(beat, 1, "went wrong")
    assert not subject.queue.share_checkpoint(beat, 8, b"checkpoint", PERIOD)
    assert subject.queue.requeue([evicted]) == []
    assert subject.backend.contents() == before


# Returning trials to the queue


def test_requeue_leaves_lost_leases_alone(subject: Subject) -> None:
    mine, other, stolen = subject.claim(), subject.claim(), subject.claim(seconds=-1.0)
    assert subject.queue.requeue_overdue() == [stolen.number]
    [thief] = subject.queue.claim("thief", PERIOD, first_ids=[stolen.trial_id])
    assert subject.queue.requeue([stolen, other, mine]) == [mine.number, other.number]
    assert subject.tokens() == {thief.trial_id: thief.token}
    assert subject.states()[:3] == [WAITING, WAITING, RUNNING]
    assert subject.queue.requeue([mine]) == []
    assert subject.queue.requeue([]) == []


def test_a_failed_run_is_repeated_in_the_same_trial(subject: Subject) -> None:
    lease = subject.claim()
    subject.queue.report(beats(lease), {lease: {4: 0.5}}, PERIOD)
    assert subject.queue.requeue_for_retry(Heartbeat(lease, 7, 1.0), 1, "not finite")
    assert not subject.queue.requeue_for_retry(Heartbeat(lease, 7, 1.0), 1, "not finite")
    trial = subject.trials()[0]
    assert trial.user_attributes == {"retries": 1, "last_failure": "not finite"} and trial.reports == {4: 0.5}
    again = subject.claim()
    assert (again.trial_id, again.number) == (lease.trial_id, lease.number) and again.token != lease.token
    assert subject.queue.requeue_for_retry(Heartbeat(again, 7, 1.0), 2, "again")
    assert subject.trials()[0].user_attributes == {"retries": 2, "last_failure": "again"}


def test_overdue_trials_return_to_the_queue_unchanged(subject: Subject) -> None:
    late, mine = subject.claim(), subject.claim(seconds=2 * PERIOD)
    subject.queue.report(beats(late), {late: {4: 0.25}}, PERIOD)
    subject.backend.now += PERIOD
    assert subject.queue.requeue_overdue() == []  # it runs out at this moment
    before = subject.trials()
    subject.backend.now += 0.5
    assert subject.queue.requeue_overdue() == [late.number]
    assert subject.queue.requeue_overdue() == []
    after = subject.trials()
    assert (before[0].state, after[0].state) == (RUNNING, WAITING)
    after[0].state = RUNNING
    assert after == before
    assert subject.tokens() == {mine.trial_id: mine.token}


def test_trials_without_a_lease_return_to_the_queue(subject: Subject) -> None:
    held = subject.claim()
    stray = subject.backend.add_elsewhere(subject.study_id, RUNNING)
    waiting = subject.backend.add_elsewhere(subject.study_id, WAITING)
    later = Subject(subject.backend, "later").claim()
    assert held.trial_id < stray < later.trial_id
    assert subject.queue.find_abandoned() != []
    assert subject.queue.requeue_overdue() == [6]
    assert subject.states() == [RUNNING] + [WAITING] * 7
    assert {trial.trial_id for trial in subject.trials()[6:]} == {stray, waiting}


def test_only_trials_of_the_study_return_to_the_queue(subject: Subject) -> None:
    others = Subject(subject.backend, "other"), Subject(subject.backend, "third")
    middle, around = others[0], (subject, others[1])
    held = [one.claim(-1.0) for one in around]
    for one in (middle, *around):
        one.backend.add_elsewhere(one.study_id, RUNNING)
    late = middle.claim(-1.0)
    assert middle.queue.requeue_overdue() == [late.number, 6]
    for one, theirs in zip(around, held, strict=True):
        assert one.tokens() == {theirs.trial_id: theirs.token}
        assert one.states() == [RUNNING] + [WAITING] * 5 + [RUNNING]


def test_a_trial_that_another_program_returned_is_lost(subject: Subject) -> None:
    lease = subject.claim()
    subject.backend.end_elsewhere(lease.trial_id, WAITING)
    assert subject.queue.renew(beats(lease), PERIOD) == set()
    assert subject.queue.requeue([lease]) == []
    assert subject.states() == [WAITING] * 6


def test_an_ended_trial_does_not_return_to_the_queue(subject: Subject) -> None:
    lease = subject.claim(-1.0)
    subject.backend.end_elsewhere(lease.trial_id, COMPLETE, 0.5)
    assert subject.queue.requeue_overdue() == []
    assert subject.states()[0] == COMPLETE and subject.tokens() == {}


def test_after_a_restart_of_the_server_workers_have_a_period_to_come_back(subject: Subject) -> None:
    lease = subject.claim()
    subject.backend.now += 3 * PERIOD
    subject.backend.server_started_at = subject.backend.now - PERIOD  # no worker could renew before
    assert subject.queue.requeue_overdue() == []
    assert subject.queue.find_abandoned() == []
    subject.backend.now += 0.5
    assert subject.queue.requeue_overdue() == [lease.number]


def test_abandoned_trials(subject: Subject) -> None:
    first, second, ended_one = subject.claim(worker="one"), subject.claim(2 * PERIOD, "two"), subject.claim()
    Subject(subject.backend, "other").claim()
    subject.backend.end_elsewhere(ended_one.trial_id, FAIL)
    subject.backend.now += PERIOD + 5
    assert subject.queue.find_abandoned() == []  # a coordinator would have been in time
    subject.backend.now += 6
    stray = subject.backend.add_elsewhere(subject.study_id, RUNNING)
    found = subject.queue.find_abandoned()
    assert [(trial.number, trial.worker, trial.silent_seconds) for trial in found] == [
        (first.number, "one", PERIOD + 11),
        (6, None, 0.0),
    ]
    assert {trial.study_id for trial in found} == {subject.study_id}
    assert subject.queue.requeue([first]) == [0] and stray and second
    assert [trial.number for trial in subject.queue.find_abandoned()] == [6]


def test_finished_trials(subject: Subject) -> None:
    done, running, *_ = (subject.claim() for _ in range(2))
    subject.finish(done)
    waiting = subject.trials()[2].trial_id
    assert subject.queue.find_finished([done.trial_id, running.trial_id, waiting, 2**30]) == {done.trial_id, 2**30}
    with subject.backend.outage():
        assert subject.queue.find_finished([]) == set()


# Checkpoints


def test_the_newest_checkpoint_is_kept_until_its_trial_ends(subject: Subject) -> None:
    before, lease, other = subject.claim(), subject.claim(), subject.claim()
    assert subject.queue.load_checkpoint(lease.trial_id) is None
    for epoch, data in ((4, b"old"), (8, bytes(range(256))), (8, bytes(range(256)))):
        assert subject.queue.share_checkpoint(Heartbeat(lease, 9, 2.0, 8), epoch, data, 3 * PERIOD)
    ids = [lease.trial_id, other.trial_id, 2**30]
    assert subject.queue.checkpoint_epochs(ids) == {lease.trial_id: 8}
    assert subject.queue.checkpoint_epochs(ids[1:]) == {}
    assert subject.queue.load_checkpoint(lease.trial_id) == bytes(range(256))
    assert [subject.queue.load_checkpoint(trial_id) for trial_id in (*ids[1:], lease.trial_id - 1)] == [None] * 3
    row = subject.backend.contents().leases[lease.trial_id]
    assert (row.epoch, row.saved_epoch, row.expires_at) == (9, 8, subject.backend.now + 3 * PERIOD)
    assert subject.queue.requeue([lease]) == [lease.number]
    assert subject.queue.checkpoint_epochs(ids) == {lease.trial_id: 8}  # for the worker that claims it next
    again = subject.claim()
    for one in (before, other):
        assert subject.queue.share_checkpoint(Heartbeat(one, 9, 2.0, 8), 4, b"theirs", 3 * PERIOD)
    assert before.trial_id < again.trial_id < other.trial_id
    assert subject.finish(again) == FinishStatus.WRITTEN
    assert subject.queue.checkpoint_epochs([before.trial_id, *ids]) == {before.trial_id: 4, other.trial_id: 4}
    assert subject.queue.load_checkpoint(again.trial_id) is None
    assert subject.queue.checkpoint_epochs([]) == {}


# The budget


def test_device_time_is_reserved_and_given_back(subject: Subject) -> None:
    seen: list[Usage] = []

    def choose(usage: Usage) -> float:
        seen.append(usage)
        return 100.0

    one = subject.queue.reserve_device_time("one", 0.0, choose)
    assert one is not None and one.usage == seen[0] == Usage(0, 0.0, 0.0) and one.seconds == 100.0
    subject.backend.now += 50
    two = subject.queue.reserve_device_time("two", 0.0, choose)
    assert two is not None and (two.usage, two.seconds) == (Usage(0, 100.0, 50.0), 100.0)
    more = subject.queue.reserve_device_time("one", 100.0, choose)
    assert more is not None and (more.usage, more.seconds) == (Usage(0, 200.0, 50.0), 200.0)
    nothing = subject.queue.reserve_device_time("one", 200.0, lambda _: 0.0)
    assert nothing is not None and (nothing.usage.device_seconds, nothing.seconds) == (300.0, 200.0)
    for _ in range(2):
        subject.queue.set_device_time("one", 12.5)
    assert subject.queue.read_usage() == Usage(0, 112.5, 50.0)
    Subject(subject.backend, "other").queue.set_device_time("three", 7.0)
    assert subject.queue.read_usage().device_seconds == 112.5


def test_a_reservation_whose_answer_was_lost_is_not_made_twice(subject: Subject) -> None:
    subject.queue.reserve_device_time("one", 0.0, lambda _: 100.0)
    again = subject.queue.reserve_device_time("one", 0.0, lambda _: 100.0)
    assert again is not None and (again.usage.device_seconds, again.seconds) == (100.0, 100.0)
    assert subject.queue.read_usage().device_seconds == 100.0
    nothing = subject.queue.reserve_device_time("one", 0.0, lambda _: 0.0)
    assert nothing is not None and nothing.seconds == 0.0  # as the holder says, if it wants nothing
    # A difference that is due to rounding is no lost answer.
    subject.queue.reserve_device_time("two", 0.0, lambda _: TOLERANCE_SECONDS)
    more = subject.queue.reserve_device_time("two", 0.0, lambda _: 1.0)
    assert more is not None and more.seconds == 1.0 + TOLERANCE_SECONDS
    for _ in range(2):  # a second is more than rounding
        same = subject.queue.reserve_device_time("three", 0.0, lambda _: 1.0)
        assert same is not None and same.seconds == 1.0


def test_a_holder_that_reserves_nothing_is_not_in_the_ledger(subject: Subject) -> None:
    subject.queue.reserve_device_time("one", 0.0, lambda _: 0.0)
    assert subject.backend.contents().device_time == {}


def test_wall_time_is_that_since_the_first_reservation_without_the_pause(subject: Subject) -> None:
    assert subject.queue.read_usage() == Usage(0, 0.0, 0.0)
    subject.queue.reserve_device_time("one", 0.0, lambda _: 0.0)
    assert subject.attributes()[STARTED_KEY] == pytest.approx(subject.backend.now)
    assert subject.queue.read_usage().wall_seconds == 0.0
    subject.backend.now += 20
    subject.pause()
    subject.backend.now += 1000
    assert subject.queue.read_usage().wall_seconds == 20.0
    subject.queue.reserve_device_time("two", 0.0, lambda _: 0.0)
    assert subject.queue.read_usage().wall_seconds == 20.0


def test_counts_what_is_at_least_as_good(subject: Subject) -> None:
    def end(state: TrialState, value: float | None) -> None:
        subject.finish(subject.claim(), value, state)

    for state, value in ((COMPLETE, 0.5), (COMPLETE, 0.5), (COMPLETE, 0.25), (PRUNED, 0.75), (FAIL, None)):
        end(state, value)
    assert [subject.queue.count_at_least_as_good(value) for value in (0.75, 0.5, 0.25, 0.0)] == [0, 2, 3, 3]
    end(COMPLETE, math.inf)  # is stored without a number
    assert subject.queue.count_at_least_as_good(0.75) == 0
    assert subject.queue.count_at_least_as_good(-math.inf) == 3
    assert subject.queue.count_at_least_as_good(math.inf) == 0


# A study that was deleted, and a database that is away


def calls(subject: Subject, lease: Lease) -> dict[str, tuple[Callable[[], Any], Any]]:
    """Return a call of every public method, and what it returns after the study was deleted."""
    queue, beat, trial_id = subject.queue, Heartbeat(lease, 8, 1.0), lease.trial_id
    return {
        "claim": (lambda: queue.claim("worker", PERIOD), []),
        "claim_new_trial": (subject.claim_new, None),
        "renew": (lambda: queue.renew([beat], PERIOD), set()),
        "report": (lambda: queue.report([beat], {lease: {4: 0.5}}, PERIOD), set()),
        "finish": (lambda: subject.finish(lease, artifacts=[Artifact("a.png", b"a")]), FinishStatus.LEASE_LOST),
        "requeue": (lambda: queue.requeue([lease]), []),
        "requeue_for_retry": (lambda: queue.requeue_for_retry(beat, 1, "note"), False),
        "requeue_overdue": (queue.requeue_overdue, []),
        "share_checkpoint": (lambda: queue.share_checkpoint(beat, 8, b"data", PERIOD), False),
        "reserve_device_time": (lambda: queue.reserve_device_time("one", 0.0, lambda _: 9.0), None),
        "set_device_time": (lambda: queue.set_device_time("one", 9.0), None),
        "count_at_least_as_good": (lambda: queue.count_at_least_as_good(0.0), 0),
        "read_usage": (queue.read_usage, Usage(0, 0.0, 0.0)),
        "find_abandoned": (queue.find_abandoned, []),
        "find_finished": (lambda: queue.find_finished([trial_id]), {trial_id}),
        "checkpoint_epochs": (lambda: queue.checkpoint_epochs([trial_id]), {}),
        "load_checkpoint": (lambda: queue.load_checkpoint(trial_id), None),
    }


METHODS = sorted(public_methods(TrialQueue))


def test_after_the_study_was_deleted_nothing_is_written(subject: Subject) -> None:
    lease = subject.claim(-1.0)
    subject.queue.share_checkpoint(Heartbeat(lease, 1, 1.0), 1, b"data", -1.0)
    subject.queue.reserve_device_time("one", 0.0, lambda _: 9.0)
    subject.backend.delete(subject.study_id)
    before = subject.backend.contents()
    assert not before.trials and not before.leases and not before.checkpoints and not before.device_time
    every = calls(subject, lease)
    assert sorted(every) == METHODS
    for name, (call, expected) in every.items():
        assert call() == expected, name
        assert subject.backend.contents() == before, name


def test_an_outage_is_an_error_and_changes_nothing(subject: Subject) -> None:
    lease = subject.claim(-1.0)
    before = subject.backend.contents()
    every = calls(subject, lease)
    assert sorted(every) == METHODS
    with subject.backend.outage():
        for name, (call, _) in every.items():
            with pytest.raises(Exception) as error:
                call()
            assert is_outage(error.value), name
    assert subject.backend.contents() == before


WRITES: dict[str, Any] = {
    "claim": [],  # of the trial; the other trials are claimed by the second call
    "claim_new_trial": None,
    "renew": "held",
    "report": "held",
    "finish": FinishStatus.WRITTEN,
    "requeue": [],
    "requeue_for_retry": False,
    "requeue_overdue": [],
    "share_checkpoint": True,
    "set_device_time": None,
}
"""Answer of a second call that follows one whose answer was lost."""


@pytest.mark.parametrize("name", WRITES)
def test_a_call_whose_answer_was_lost_may_be_repeated(subject: Subject, name: str) -> None:
    lease = subject.claim(-1.0 if name == "requeue_overdue" else PERIOD)
    if name == "claim":
        subject.queue.claim("worker", PERIOD, n=4)  # one is left
    call = calls(subject, lease)[name][0]
    before = subject.backend.contents()
    with subject.backend.losing_answers(), pytest.raises(Exception) as error:
        call()
    assert is_outage(error.value)
    after = subject.backend.contents()
    assert after != before or name == "renew"
    expected = {lease} if WRITES[name] == "held" else WRITES[name]
    assert call() == expected
    assert subject.backend.contents() == after


def test_trials_whose_claim_was_lost_return_to_the_queue(subject: Subject) -> None:
    with subject.backend.losing_answers():
        for call in (lambda: subject.queue.claim("worker", PERIOD, n=2), subject.claim_new):
            with pytest.raises(Exception, match="away"):
                call()
    assert subject.states() == [RUNNING, RUNNING, WAITING, WAITING, WAITING, WAITING, RUNNING]
    subject.backend.now += PERIOD + 1
    assert subject.queue.requeue_overdue() == [0, 1, 6]
