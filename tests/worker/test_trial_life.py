"""The rules of a trial's life: examples, all reachable states, and any order of events."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from miiii_search.worker import life_events as events
from miiii_search.worker.life_events import Event
from miiii_search.worker.life_table import EVENTS, diagram, table
from miiii_search.worker.trial_life import (
    DUTIES_IN,
    FINAL,
    IN_LANE,
    Action,
    Duty,
    Phase,
    TrialLife,
    transition,
)


def live(*told: Event, life: TrialLife | None = None) -> tuple[TrialLife, list[Action]]:
    """Return the state after some events, and all actions."""
    life, done = life or TrialLife(), list[Action]()
    for event in told:
        life, actions = transition(life, event)
        done += actions
    return life, done


def reachable_states() -> set[TrialLife]:
    """Return every state that some order of events leads to, with at most three checkpoints in progress."""
    found, new = {TrialLife()}, [TrialLife()]
    while new:
        life = new.pop()
        for event in EVENTS:
            after, _ = transition(life, event)
            if after not in found and after.saving <= 3:
                found.add(after)
                new.append(after)
    return found


REACHABLE = reachable_states()


def test_the_events_of_the_table_are_of_every_kind() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


def test_every_phase_can_be_reached() -> None:
    assert {life.phase for life in REACHABLE} == set(Phase)


def test_a_run_that_ends_by_itself() -> None:
    life, done = live(events.Trained(has_reports=True), events.ReportsWritten(has_rungs=True))
    assert life == TrialLife(duties=frozenset({Duty.ASK_PRUNER})) and not done
    life, done = live(events.PrunerDecided(None), events.TrainingEnded(by_itself=True), life=life)
    assert life.phase == Phase.REPORTING and life.duties == {Duty.WRITE_REPORTS} and done == [Action.DROP_RUN]
    life, done = live(events.ReportsWritten(has_rungs=True), life=life)
    assert life == TrialLife(Phase.FINALIZING) and done == [Action.WRITE_RESULT]
    assert live(events.ResultWritten("solved"), life=life) == (TrialLife(Phase.DONE), [])


def test_a_pruned_run_keeps_its_reason() -> None:
    life, done = live(events.PrunerDecided("hopeless"), events.TrainingEnded(by_itself=False))
    assert life.phase == Phase.REPORTING and life.prune_reason == "hopeless"
    assert done == [Action.STOP_RUN, Action.DROP_RUN]


def test_a_run_that_ends_before_it_could_be_pruned_is_not_pruned() -> None:
    life, _ = live(events.PrunerDecided("hopeless"), events.TrainingEnded(by_itself=True))
    assert life.phase == Phase.REPORTING and life.prune_reason is None


def test_a_run_that_had_not_started_when_it_was_pruned_is_stopped_again() -> None:
    life, done = live(events.PrunerDecided("hopeless"), events.Trained(has_reports=False))
    assert life.phase == Phase.STOPPING and done == [Action.STOP_RUN, Action.STOP_RUN]


def test_a_suspended_trial_returns_once_its_last_checkpoint_is_written() -> None:
    life, done = live(events.StateReceived(), events.StudyPaused())
    assert life.phase == Phase.SUSPENDING and life.duties == {Duty.SUSPEND_RUN}
    life, done = live(events.SuspensionBegun(), events.StateReceived(), events.LaneFreed(), life=life)
    assert life == TrialLife(Phase.SAVING, saving=2) and done == [Action.WRITE_CHECKPOINT, Action.DROP_RUN]
    life, _ = live(events.CheckpointWritten(), life=life)
    assert life == TrialLife(Phase.SAVING, saving=1)
    life, _ = live(events.CheckpointWritten(), life=life)
    assert life.phase == Phase.REQUEUING and life.duties == {Duty.RETURN_TO_QUEUE}
    assert live(events.Returned(), life=life)[0].phase == Phase.REQUEUED


def test_a_slow_disk_skips_checkpoints_but_never_the_last() -> None:
    life, done = live(events.StateReceived(), events.StateReceived())
    assert done == [Action.WRITE_CHECKPOINT] and life.saving == 1
    _, done = live(events.WorkerStopping(), events.StateReceived(), life=life)
    assert done == [Action.WRITE_CHECKPOINT]


def test_a_missed_lease_is_confirmed_by_a_write_before_the_trial_is_dropped() -> None:
    life, done = live(events.LeaseMissed())
    assert life.phase == Phase.TRAINING and life.duties == {Duty.WRITE_REPORTS} and not done
    assert live(events.LeaseLost(), life=life) == (TrialLife(Phase.LOST), [Action.DROP_RUN])


def test_a_stopping_worker_returns_what_it_has_not_finished() -> None:
    cases: dict[tuple[Event, ...], Phase] = {
        (): Phase.REQUEUING,
        (events.TrainingEnded(by_itself=True),): Phase.REQUEUING,
        (events.TrainingEnded(by_itself=True), events.ReportsWritten(has_rungs=False)): Phase.FINALIZING,
    }
    for told, phase in cases.items():
        life, _ = live(events.WorkerStopping(), *told, events.TrainersClosed())
        assert life.phase == phase
        assert live(events.NotWritten(), life=life)[0].phase == Phase.ABANDONED


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase in FINAL], ids=lambda phase: phase.name)
@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_nothing_follows_a_final_phase(phase: Phase, event: Event) -> None:
    assert transition(TrialLife(phase), event) == (TrialLife(phase), ())


def test_a_state_has_only_the_duties_of_its_phase() -> None:
    for life in REACHABLE:
        assert life.duties <= DUTIES_IN.get(life.phase, frozenset()), life


def test_duties_and_results_end_with_their_lease() -> None:
    """Whatever the state, a lost lease ends all writing and frees the lane."""
    for life in REACHABLE:
        if life.phase not in FINAL:
            assert transition(life, events.LeaseLost())[0].phase == Phase.LOST


def test_every_state_ends_when_it_is_answered() -> None:
    """From every state, the answers to what the worker does lead to a final phase."""
    for start in REACHABLE:
        life = start
        for _ in range(20):
            if life.phase in FINAL:
                break
            life, _ = transition(life, answer_to(life))
        assert life.phase in FINAL, start


def answer_to(life: TrialLife) -> Event:
    """Return what the world answers to a state, if it is neither down nor interfering."""
    answers: dict[Duty, Event] = {
        Duty.WRITE_REPORTS: events.ReportsWritten(has_rungs=True),
        Duty.ASK_PRUNER: events.PrunerDecided(None),
        Duty.SUSPEND_RUN: events.SuspensionBegun(),
    }
    for duty, answer in answers.items():
        if duty in life.duties:
            return answer
    if life.saving and life.phase == Phase.SAVING:
        return events.CheckpointWritten()
    by_phase: dict[Phase, Event] = {
        Phase.TRAINING: events.TrainingEnded(by_itself=True),
        Phase.STOPPING: events.TrainingEnded(by_itself=False),
        Phase.SUSPENDING: events.LaneFreed(),
        Phase.REQUEUING: events.Returned(),
        Phase.FINALIZING: events.ResultWritten("solved"),
    }
    return by_phase[life.phase]


def test_the_page_shows_the_rules() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "trial-life.md").read_text(encoding="utf-8")
    assert diagram() in page and table() in page, "print it anew: python -m miiii_search.worker.life_table"


class World(RuleBasedStateMachine):
    """A trial in a world that acts in any order: a trainer, a disk, a database, another worker, and a user.

    The world does what real ones can do, and nothing else: it writes a checkpoint only if one was given to it, for
    example. It keeps its own account of what is saved and written, against which the invariants are checked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.life = TrialLife()
        self.actions: list[Action] = []
        self.owns_lease = True
        self.in_pool = False
        """Whether the trainer knows the run: not before it is admitted, and not after it has left."""
        self.told_to_stop = self.told_to_suspend = False
        self.unreported = 0
        self.reported = 0
        self.on_disk = 0
        """Checkpoints that were given to the disk and that it has not answered."""
        self.results_in_progress = 0
        self.ends: list[str] = []
        """Results and returns to the queue that this worker has written."""
        self.is_draining = self.is_closed = False

    def tell(self, event: Event) -> None:
        before = self.life
        self.life, actions = transition(before, event)
        self.actions += actions
        for action in actions:
            if action == Action.WRITE_CHECKPOINT:
                assert isinstance(event, events.StateReceived)
                self.on_disk += 1
            elif action == Action.WRITE_RESULT:
                assert not self.unreported, "the result is written before the reports"
                self.results_in_progress += 1
            elif action == Action.STOP_RUN:
                self.told_to_stop = self.in_pool
            elif action == Action.DROP_RUN:
                self.in_pool = False

    def writes(self) -> bool:
        """Return whether a write is carried out; a worker that has lost the lease is told so and writes nothing."""
        if not self.owns_lease:
            self.tell(events.LeaseLost())
        return self.owns_lease

    @initialize(resumed=st.booleans())
    def claim(self, resumed: bool) -> None:
        self.unreported = int(resumed)
        self.tell(events.Trained(has_reports=resumed))

    # --- the trainer ---

    @precondition(lambda self: not self.in_pool and self.life.phase in IN_LANE and not self.is_closed)
    @rule()
    def admit(self) -> None:
        self.in_pool, self.told_to_stop, self.told_to_suspend = True, False, False

    @precondition(lambda self: self.in_pool and not self.is_closed)
    @rule(passes_rung=st.booleans())
    def train(self, passes_rung: bool) -> None:
        if self.told_to_suspend:
            return
        self.unreported += passes_rung
        if self.told_to_stop:
            self.in_pool = False
            self.tell(events.TrainingEnded(by_itself=False))
        else:
            self.tell(events.Trained(has_reports=self.unreported > 0))

    @precondition(lambda self: self.in_pool and not self.is_closed and not self.told_to_suspend)
    @rule()
    def end(self) -> None:
        self.in_pool = False
        self.unreported += 1
        self.tell(events.TrainingEnded(by_itself=True))

    @precondition(lambda self: self.in_pool and not self.is_closed)
    @rule()
    def post_state(self) -> None:
        self.tell(events.StateReceived())

    @precondition(lambda self: self.in_pool and self.told_to_suspend)
    @rule()
    def suspend(self) -> None:
        saving = self.on_disk
        self.tell(events.StateReceived())
        assert self.on_disk == saving + 1, "the last state before a pause was forgotten"
        self.tell(events.LaneFreed())
        assert not self.in_pool

    @precondition(lambda self: self.in_pool and not self.is_closed)
    @rule()
    def run_out_of_memory(self) -> None:
        self.tell(events.RanOutOfMemory())
        assert not self.in_pool

    # --- the worker's duties; a world that is down simply does not answer ---

    @precondition(lambda self: Duty.SUSPEND_RUN in self.life.duties and self.in_pool)
    @rule()
    def begin_suspension(self) -> None:
        self.told_to_suspend = True
        self.tell(events.SuspensionBegun())

    @precondition(lambda self: Duty.WRITE_REPORTS in self.life.duties)
    @rule(has_rungs=st.booleans())
    def write_reports(self, has_rungs: bool) -> None:
        if self.writes():
            self.reported += self.unreported
            self.unreported = 0
            self.tell(events.ReportsWritten(has_rungs=has_rungs))

    @precondition(lambda self: Duty.ASK_PRUNER in self.life.duties)
    @rule(reason=st.none() | st.just("hopeless"))
    def ask_pruner(self, reason: str | None) -> None:
        assert self.life.phase == Phase.TRAINING
        self.tell(events.PrunerDecided(reason))

    @precondition(lambda self: Duty.RETURN_TO_QUEUE in self.life.duties)
    @rule()
    def return_to_queue(self) -> None:
        assert self.is_closed or not self.on_disk, "a checkpoint that is being written was forgotten"
        if self.owns_lease:  # a lost lease is not returned, and that is no error
            self.ends.append("queue")
        self.owns_lease = False
        self.tell(events.Returned())

    @precondition(lambda self: self.results_in_progress)
    @rule(answer=st.sampled_from(["written", "refused"]))
    def write_result(self, answer: str) -> None:
        self.results_in_progress -= 1
        if self.writes():
            self.ends.append(answer)
            self.owns_lease = False
            self.tell(events.ResultWritten("") if answer == "written" else events.ResultRefused(""))

    @precondition(lambda self: self.on_disk)
    @rule()
    def write_checkpoint(self) -> None:
        self.on_disk -= 1
        self.tell(events.CheckpointWritten())

    # --- other programs and people ---

    @precondition(lambda self: self.owns_lease)
    @rule()
    def lose_lease(self) -> None:
        self.owns_lease = False

    @precondition(lambda self: not self.owns_lease)
    @rule()
    def miss_lease(self) -> None:
        self.tell(events.LeaseMissed())

    @rule()
    def pause(self) -> None:
        self.tell(events.StudyPaused())

    @precondition(lambda self: not self.is_draining)
    @rule()
    def stop_worker(self) -> None:
        self.is_draining = True
        self.tell(events.WorkerStopping())

    @precondition(lambda self: self.is_draining and not self.is_closed)
    @rule()
    def close_trainers(self) -> None:
        self.is_closed, self.in_pool = True, False
        self.tell(events.TrainersClosed())

    @precondition(lambda self: self.is_closed)
    @rule()
    def give_up(self) -> None:
        self.tell(events.NotWritten())

    # --- what always holds ---

    @invariant()
    def ends_once(self) -> None:
        assert len(self.ends) <= 1
        assert self.actions.count(Action.WRITE_RESULT) <= 1

    @invariant()
    def counts_checkpoints(self) -> None:
        if self.life.phase not in FINAL:
            assert self.life.saving == self.on_disk

    @invariant()
    def owes_every_report(self) -> None:
        """A report is written, or owed, or its trial does not end with this worker."""
        if self.unreported and self.life.phase not in FINAL:
            assert Duty.WRITE_REPORTS in self.life.duties

    @invariant()
    def holds_a_lane_only_in_its_phases(self) -> None:
        if self.in_pool:
            assert self.life.phase in IN_LANE

    @invariant()
    def says_how_it_ended(self) -> None:
        expected: dict[str, Any] = {"written": Phase.DONE, "refused": Phase.REQUEUED, "queue": Phase.REQUEUED}
        if self.ends:
            assert self.life.phase == expected[self.ends[0]]


TestAnyOrderOfEvents = World.TestCase
