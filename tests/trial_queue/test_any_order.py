"""The queue on SQLite and the fake in memory give the same answers and end up the same, for any order of calls.

Two workers and a coordinator share a study. Workers keep using leases that they have lost. Time passes, the study is
paused, other programs end trials, and the answers of the database are lost now and then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from optuna.trial import TrialState

from miiii_search.config.search_space import Point
from miiii_search.storage.artifacts import Artifact
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.retry import is_outage
from miiii_search.storage.study_attrs import PAUSED_KEY, SPEC_KEY, STARTED_KEY
from miiii_search.storage.trial_attrs import ENDED_BY_KEY
from miiii_search.study.trials import distributions, new_trial, shape_of
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import TrialResult
from miiii_search.trial_queue.trial_queue import TrialQueue
from tests.backends import NOW, Backend, MemoryBackend, SqlBackend
from tests.support import all_tables, make_spec

SPEC = make_spec(space={"weight_decay": (0.0, 0.5), "n_heads": (2, 4)})
SHAPES = [shape_of(16, 2), shape_of(16, 4)]
POINT: Point = {"weight_decay": 0.5, "n_heads": 4}
MAX_TRIALS = 8
PERIOD = 10.0

workers = st.sampled_from(["one", "other"])
picks = st.lists(st.integers(0, 30), max_size=3)
"""Leases, as indices into those that were ever granted."""
epochs = st.integers(1, 99)


class Side:
    """One of the two databases, with the study and all leases that were ever granted."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.study_id = backend.create("study", SPEC)
        self.queue: TrialQueue = backend.queue(self.study_id)
        self.leases: list[Lease] = []

    def picked(self, indices: Sequence[int]) -> list[Lease]:
        """Return different leases among those that were granted."""
        return [self.leases[k] for k in {index % len(self.leases) for index in indices}] if self.leases else []

    def trial_id(self, number: int) -> int:
        return self.backend.contents().trials_of(self.study_id)[number].trial_id

    def label(self, token: str) -> int | None:
        """Return the index of a lease by its token; None if its answer was lost."""
        return next((k for k, lease in enumerate(self.leases) if lease.token == token), None)

    def plain(self, answer: Any) -> Any:
        """Return an answer without what the databases choose for themselves: ids and tokens."""
        if isinstance(answer, Lease):
            return "lease", answer.number, self.label(answer.token)
        if isinstance(answer, list):
            return [self.plain(item) for item in answer]
        if isinstance(answer, set):
            return sorted((self.plain(item) for item in answer), key=repr)
        return answer

    def view(self) -> dict[str, Any]:
        """Return all that is stored, without ids and tokens."""
        contents = self.backend.contents()
        trials = contents.trials_of(self.study_id)
        numbers = {trial.trial_id: trial.number for trial in trials}
        attributes = contents.studies[self.study_id].system_attributes
        return {
            "trials": [
                {
                    **vars(trial),
                    "trial_id": 0,
                    "study_id": 0,
                    "started_at": trial.started_at is not None,
                    "completed_at": trial.completed_at is not None,
                    "system_attributes": self._attributes(trial.system_attributes, contents.artifacts),
                }
                for trial in trials
            ],
            "leases": {
                numbers[row.trial_id]: {**vars(row), "trial_id": 0, "study_id": 0, "token": self.label(row.token)}
                for row in contents.leases.values()
            },
            "checkpoints": {numbers[trial_id]: vars(row) for trial_id, row in contents.checkpoints.items()},
            "device_time": {holder: row.seconds for holder, row in contents.device_time.items()},
            "artifacts": sorted(contents.artifacts.values()),
            "times": {key: attributes.get(key) for key in (PAUSED_KEY, STARTED_KEY)},
            "notes": sorted(
                (numbers[int(key.split(":")[1])], key.split(":", 2)[2], str(value))
                for key, value in attributes.items()
                if key.startswith("dashboard:") and key.split(":")[1].isdigit()
            ),
        }

    def _attributes(self, attributes: dict[str, Any], artifacts: dict[str, bytes]) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, value in attributes.items():
            if key == ENDED_BY_KEY:
                plain[key] = self.label(value)
            elif key.startswith("artifacts:"):
                plain[f"artifact {artifacts[key.removeprefix('artifacts:')]!r}"] = True
            else:
                plain[key] = value
        return plain


class TwoQueues(RuleBasedStateMachine):
    """Makes each call on both sides and compares the answers."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()
        self.answers_are_lost = False

    @initialize()
    def begin(self) -> None:
        sql = SqlBackend(self.database)
        self.resources.enter_context(sql.clock())
        self.sides = [Side(sql), Side(MemoryBackend())]
        self.n_trials = len(SPEC.queue())

    def teardown(self) -> None:
        self.resources.close()
        with self.database.transaction() as connection:
            for table in reversed(all_tables()):
                connection.execute(table.delete())

    def call(self, action: Callable[[Side], Any], *, loses: bool = True) -> Any:
        """Make a call on both sides, and return the common answer; "outage" if it was lost."""
        lost, self.answers_are_lost = self.answers_are_lost and loses, False
        answers = []
        for side in self.sides:
            with side.backend.losing_answers() if lost else contextlib.nullcontext():
                try:
                    answer = action(side)
                except Exception as error:
                    if not is_outage(error):
                        raise
                    answer = "outage"
            for lease in answer if isinstance(answer, list) else [answer]:
                if isinstance(lease, Lease) and side.label(lease.token) is None:
                    side.leases.append(lease)
            answers.append(side.plain(answer))
        assert answers[0] == answers[1]
        return answers[0]

    # Workers

    @rule(
        worker=workers,
        n=st.integers(1, 3),
        seconds=st.sampled_from([PERIOD, 2 * PERIOD]),
        first=st.lists(st.integers(0, 3), max_size=2, unique=True),
        preferred=st.lists(st.sampled_from(SHAPES), max_size=1),
        excluded=st.lists(st.sampled_from(SHAPES), max_size=1),
    )
    def claim(
        self, worker: str, n: int, seconds: float, first: list[int], preferred: list[str], excluded: list[str]
    ) -> None:
        self.call(
            lambda side: side.queue.claim(
                worker,
                seconds,
                n=n,
                first_ids=[side.trial_id(number) for number in first],
                preferred_shapes=preferred,
                excluded_shapes=excluded,
            )
        )

    @precondition(lambda self: self.n_trials < MAX_TRIALS)
    @rule(worker=workers, off_by=st.sampled_from([0, 0, 1]), has_spec=st.booleans())
    def claim_new_trial(self, worker: str, off_by: int, has_spec: bool) -> None:
        def add(side: Side) -> Lease | None:
            attributes = side.backend.contents().studies[side.study_id].system_attributes
            return side.queue.claim_new_trial(
                new_trial(SPEC, POINT, 1),
                distributions(SPEC),
                worker,
                PERIOD,
                n_trials=self.n_trials + off_by,
                attributes={SPEC_KEY: attributes[SPEC_KEY] if has_spec else None},
            )

        self.call(add)
        self.n_trials = len(self.sides[0].backend.contents().trials)

    @rule(picked=picks, epoch=epochs)
    def renew(self, picked: list[int], epoch: int) -> None:
        self.call(lambda side: side.queue.renew([Heartbeat(x, epoch, 2.5, 4) for x in side.picked(picked)], PERIOD))

    @rule(picked=picks, reports=st.dictionaries(epochs, st.floats(allow_nan=False), max_size=2))
    def report(self, picked: list[int], reports: dict[int, float]) -> None:
        def write(side: Side) -> set[Lease]:
            held = side.picked(picked)
            return side.queue.report([Heartbeat(x, 5, 1.0) for x in held], dict.fromkeys(held, reports), PERIOD)

        self.call(write)

    @rule(picked=picks, epoch=epochs, data=st.binary(max_size=4))
    def share_checkpoint(self, picked: list[int], epoch: int, data: bytes) -> None:
        def share(side: Side) -> list[bool]:
            held = side.picked(picked[:1])
            return [side.queue.share_checkpoint(Heartbeat(x, epoch, 1.0, epoch), epoch, data, PERIOD) for x in held]

        self.call(share)

    @rule(
        picked=picks,
        state=st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]),
        value=st.floats(allow_nan=False),
        solved=st.sampled_from([None, 8]),
        budget=st.sampled_from([None, 1, 2]),
        files=st.lists(st.binary(max_size=3), max_size=2, unique=True),
    )
    def finish(
        self,
        picked: list[int],
        state: TrialState,
        value: float,
        solved: int | None,
        budget: int | None,
        files: list[bytes],
    ) -> None:
        result = TrialResult(
            state,
            None if state == TrialState.FAIL else value,
            f"ended as {state.name}.",
            {"epochs_to_solve": solved},
            [Artifact("a.bin", data) for data in files],
            is_solved=solved is not None,
        )

        def end(side: Side) -> list[Any]:
            return [side.queue.finish(Heartbeat(x, 9, 1.0), result, budget) for x in side.picked(picked[:1])]

        self.call(end)

    @rule(picked=picks, retries=st.integers(1, 3))
    def requeue_for_retry(self, picked: list[int], retries: int) -> None:
        def retry(side: Side) -> list[bool]:
            held = side.picked(picked[:1])
            return [side.queue.requeue_for_retry(Heartbeat(x, 1, 1.0), retries, "not finite") for x in held]

        self.call(retry)

    @rule(picked=picks)
    def requeue(self, picked: list[int]) -> None:
        self.call(lambda side: side.queue.requeue(side.picked(picked)))

    @rule(worker=workers, known=st.sampled_from([0.0, 100.0]), seconds=st.sampled_from([0.0, 100.0]))
    def reserve_device_time(self, worker: str, known: float, seconds: float) -> None:
        self.call(lambda side: side.queue.reserve_device_time(worker, known, lambda _: seconds))

    @rule(worker=workers, seconds=st.sampled_from([0.0, 50.0]))
    def set_device_time(self, worker: str, seconds: float) -> None:
        self.call(lambda side: side.queue.set_device_time(worker, seconds))

    # The coordinator, other programs, and time

    @rule()
    def requeue_overdue(self) -> None:
        self.call(lambda side: side.queue.requeue_overdue())

    @rule(seconds=st.sampled_from([1.0, PERIOD / 2, PERIOD + 0.5, 3 * PERIOD]))
    def time_passes(self, seconds: float) -> None:
        for side in self.sides:
            side.backend.now += seconds

    @rule(seconds=st.sampled_from([1.0, 2 * PERIOD]))
    def the_server_restarts(self, seconds: float) -> None:
        for side in self.sides:
            side.backend.server_started_at = side.backend.now - seconds

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        for side in self.sides:
            side.backend.write_attributes(side.study_id, {PAUSED_KEY: side.backend.now if paused else None})

    @rule(number=st.integers(0, 3), state=st.sampled_from([TrialState.COMPLETE, TrialState.FAIL]))
    def another_program_ends_a_trial(self, number: int, state: TrialState) -> None:
        for side in self.sides:
            if not side.backend.contents().trials_of(side.study_id)[number].state.is_finished():
                value = 0.5 if state == TrialState.COMPLETE else None
                side.backend.end_elsewhere(side.trial_id(number), state, value)

    @precondition(lambda self: self.n_trials < MAX_TRIALS)
    @rule(state=st.sampled_from([TrialState.RUNNING, TrialState.WAITING]))
    def another_program_adds_a_trial(self, state: TrialState) -> None:
        for side in self.sides:
            side.backend.add_elsewhere(side.study_id, state)
        self.n_trials += 1

    @rule()
    def the_next_answer_is_lost(self) -> None:
        self.answers_are_lost = True

    @rule(value=st.floats(allow_nan=False))
    def read(self, value: float) -> None:
        def answers(side: Side) -> list[Any]:
            queue, trials = side.queue, side.backend.contents().trials_of(side.study_id)
            ids = {trial.trial_id: trial.number for trial in trials}
            return [
                [(trial.number, trial.worker, trial.silent_seconds) for trial in queue.find_abandoned()],
                queue.read_usage(),
                sorted(ids[trial_id] for trial_id in queue.find_finished(list(ids))),
                queue.count_at_least_as_good(value),
                sorted((ids[trial_id], epoch) for trial_id, epoch in queue.checkpoint_epochs(list(ids)).items()),
                [queue.load_checkpoint(trial_id) for trial_id in ids],
            ]

        self.call(answers, loses=False)

    @invariant()
    def both_hold_the_same(self) -> None:
        if hasattr(self, "sides"):
            one, other = (side.view() for side in self.sides)
            assert one == other
            assert all(side.backend.now >= NOW for side in self.sides)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/any-order.db", create=True)
    yield opened
    opened.close()


def test_any_order_of_calls(database: Database) -> None:
    TwoQueues.database = database
    limits = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(TwoQueues, settings=limits)
