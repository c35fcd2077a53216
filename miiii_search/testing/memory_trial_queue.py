"""`TrialQueue` in memory, for unit tests. The contract suite compares it with SQLite and PostgreSQL."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from miiii_search.storage import notes
from miiii_search.storage.abandoned import ABANDONED_AFTER_SECONDS, AbandonedTrial
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES, artifact_link
from miiii_search.storage.records import NewTrial
from miiii_search.storage.study_attrs import PAUSED_KEY, STARTED_KEY
from miiii_search.storage.trial_attrs import ENDED_BY_KEY, RETRIES_KEY, SHAPE_KEY
from miiii_search.storage.usage import Usage
from miiii_search.testing.memory_database import (
    MemoryCheckpoint,
    MemoryContents,
    MemoryDatabase,
    MemoryDeviceTime,
    MemoryLease,
    MemoryTrial,
    through_json,
)
from miiii_search.trial_queue._device_time import TOLERANCE_SECONDS, ReservedTime
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from miiii_search.trial_queue.trial_queue import TrialQueue


class MemoryTrialQueue(TrialQueue):
    """The queue of one study in a `MemoryDatabase`. See `TrialQueue` for what each method does.

    Args:
        memory: The database.
        study_id: Optuna's id of the study.
    """

    def __init__(self, memory: MemoryDatabase, study_id: int) -> None:
        self._memory = memory
        self._study_id = study_id

    def claim(
        self,
        worker: str,
        lease_seconds: float,
        *,
        n: int = 1,
        first_ids: Sequence[int] = (),
        preferred_shapes: Collection[str] = (),
        excluded_shapes: Collection[str] = (),
    ) -> list[Lease]:
        """Do what `TrialQueue.claim` does."""
        ranks = {trial_id: rank for rank, trial_id in enumerate(first_ids)}

        def order(trial: MemoryTrial) -> tuple[int, bool, int]:
            is_other = trial.system_attributes.get(SHAPE_KEY) not in preferred_shapes
            return ranks.get(trial.trial_id, len(ranks)), is_other, trial.number

        with self._memory.transaction() as contents:
            study = contents.studies.get(self._study_id)
            if study is None or PAUSED_KEY in study.system_attributes:
                return []
            waiting = [
                trial
                for trial in contents.trials_of(self._study_id)
                if trial.state == TrialState.WAITING
                and trial.system_attributes.get(SHAPE_KEY, "") not in excluded_shapes
            ]
            claimed = sorted(waiting, key=order)[:n]
            return [self._start(contents, trial, worker, lease_seconds) for trial in claimed]

    def claim_new_trial(
        self,
        trial: NewTrial,
        space: Mapping[str, BaseDistribution],
        worker: str,
        lease_seconds: float,
        *,
        n_trials: int,
        attributes: Mapping[str, Any],
    ) -> Lease | None:
        """Do what `TrialQueue.claim_new_trial` does."""
        with self._memory.transaction() as contents:
            study = contents.studies.get(self._study_id)
            if study is None or PAUSED_KEY in study.system_attributes:
                return None
            if any(study.system_attributes.get(key) != value for key, value in attributes.items()):
                return None
            if len(contents.trials_of(self._study_id)) != n_trials:
                return None
            added = contents.add_trial(self._study_id)
            added.params = dict(trial.params)
            added.distributions = {name: space[name] for name in trial.params}
            added.system_attributes = through_json(dict(trial.system_attributes))
            return self._start(contents, added, worker, lease_seconds)

    def renew(self, heartbeats: Iterable[Heartbeat], lease_seconds: float) -> set[Lease]:
        """Do what `TrialQueue.renew` does."""
        with self._memory.transaction() as contents:
            return self._renew(contents, heartbeats, lease_seconds)

    def report(
        self, heartbeats: Sequence[Heartbeat], reports: Mapping[Lease, Mapping[int, float]], lease_seconds: float
    ) -> set[Lease]:
        """Do what `TrialQueue.report` does."""
        with self._memory.transaction() as contents:
            held = self._renew(contents, heartbeats, lease_seconds)
            for lease in held:
                contents.trials[lease.trial_id].reports.update(reports.get(lease, {}))
            return held

    def finish(self, heartbeat: Heartbeat, result: TrialResult, solved_budget: int | None = None) -> FinishStatus:
        """Do what `TrialQueue.finish` does."""
        lease = heartbeat.lease
        with self._memory.transaction() as contents:
            if not self._renew(contents, [heartbeat], 0.0):
                trial = contents.trials.get(lease.trial_id)
                was_ended = trial is not None and trial.system_attributes.get(ENDED_BY_KEY) == lease.token
                return FinishStatus.WRITTEN if was_ended else FinishStatus.LEASE_LOST
            if result.is_solved and solved_budget is not None and self._count_solved(contents) >= solved_budget:
                self._set_waiting(contents, [lease.trial_id])
                del contents.leases[lease.trial_id]
                return FinishStatus.OVER_BUDGET
            self._write_result(contents, lease, result)
            contents.checkpoints.pop(lease.trial_id, None)
            del contents.leases[lease.trial_id]
            return FinishStatus.WRITTEN

    def requeue(self, held: Collection[Lease]) -> list[int]:
        """Do what `TrialQueue.requeue` does."""
        tokens = {lease.token for lease in held}
        with self._memory.transaction() as contents:
            ended = [lease.trial_id for lease in contents.leases.values() if lease.token in tokens]
            for trial_id in ended:
                del contents.leases[trial_id]
            return self._set_waiting(contents, ended)

    def requeue_for_retry(self, heartbeat: Heartbeat, retries: int, note: str) -> bool:
        """Do what `TrialQueue.requeue_for_retry` does."""
        trial_id = heartbeat.lease.trial_id
        with self._memory.transaction() as contents:
            if not self._renew(contents, [heartbeat], 0.0):
                return False
            contents.trials[trial_id].user_attributes |= {RETRIES_KEY: retries, "last_failure": note}
            self._set_waiting(contents, [trial_id])
            del contents.leases[trial_id]
            return True

    def requeue_overdue(self) -> list[int]:
        """Do what `TrialQueue.requeue_overdue` does."""
        with self._memory.transaction() as contents:
            for lease in list(contents.leases.values()):
                if lease.study_id == self._study_id and self._is_overdue(lease):
                    del contents.leases[lease.trial_id]
            without = [trial for trial in contents.trials_of(self._study_id) if trial.trial_id not in contents.leases]
            return self._set_waiting(contents, [trial.trial_id for trial in without])

    def share_checkpoint(self, heartbeat: Heartbeat, epoch: int, data: bytes, lease_seconds: float) -> bool:
        """Do what `TrialQueue.share_checkpoint` does."""
        with self._memory.transaction() as contents:
            if not self._renew(contents, [heartbeat], lease_seconds):
                return False
            contents.checkpoints[heartbeat.lease.trial_id] = MemoryCheckpoint(epoch, data)
            return True

    def reserve_device_time(self, holder: str, known: float, choose: Callable[[Usage], float]) -> ReservedTime | None:
        """Do what `TrialQueue.reserve_device_time` does."""
        with self._memory.transaction() as contents:
            study = contents.studies.get(self._study_id)
            if study is None:
                return None
            study.system_attributes.setdefault(STARTED_KEY, self._memory.now)
            usage = self._usage(contents)
            seconds = choose(usage)
            if seconds <= 0:
                return ReservedTime(usage, known)
            row = contents.device_time.setdefault(holder, MemoryDeviceTime(self._study_id, 0.0))
            if row.seconds <= known + TOLERANCE_SECONDS:
                row.seconds += seconds
            return ReservedTime(usage, row.seconds)

    def set_device_time(self, holder: str, seconds: float) -> None:
        """Do what `TrialQueue.set_device_time` does."""
        with self._memory.transaction() as contents:
            if self._study_id in contents.studies:
                contents.device_time[holder] = MemoryDeviceTime(self._study_id, seconds)

    def count_at_least_as_good(self, value: float) -> int:
        """Do what `TrialQueue.count_at_least_as_good` does."""
        with self._memory.reading() as contents:
            values = [t.value for t in contents.trials_of(self._study_id) if t.state == TrialState.COMPLETE]
            return sum(other is not None and math.isfinite(other) and other >= value for other in values)

    def read_usage(self) -> Usage:
        """Do what `TrialQueue.read_usage` does."""
        with self._memory.reading() as contents:
            return self._usage(contents)

    def find_abandoned(self) -> list[AbandonedTrial]:
        """Do what `TrialQueue.find_abandoned` does."""
        with self._memory.reading() as contents:
            found = []
            for trial in contents.trials_of(self._study_id):
                lease = contents.leases.get(trial.trial_id)
                if trial.state != TrialState.RUNNING:
                    continue
                if lease is None:
                    found.append(AbandonedTrial(self._study_id, trial.number, None, 0.0))
                elif self._is_overdue(lease, ABANDONED_AFTER_SECONDS):
                    silent = self._memory.now - lease.renewed_at
                    found.append(AbandonedTrial(self._study_id, trial.number, lease.worker, silent))
            return found

    def find_finished(self, trial_ids: Collection[int]) -> set[int]:
        """Do what `TrialQueue.find_finished` does."""
        if not trial_ids:
            return set()
        with self._memory.reading() as contents:
            known = {i: contents.trials[i] for i in trial_ids if i in contents.trials}
            return set(trial_ids) - {i for i, trial in known.items() if not trial.state.is_finished()}

    def checkpoint_epochs(self, trial_ids: Collection[int]) -> dict[int, int]:
        """Do what `TrialQueue.checkpoint_epochs` does."""
        with self._memory.reading() as contents:
            return {i: contents.checkpoints[i].epoch for i in trial_ids if i in contents.checkpoints}

    def load_checkpoint(self, trial_id: int) -> bytes | None:
        """Do what `TrialQueue.load_checkpoint` does."""
        with self._memory.reading() as contents:
            found = contents.checkpoints.get(trial_id)
            return None if found is None else found.data

    def _start(self, contents: MemoryContents, trial: MemoryTrial, worker: str, lease_seconds: float) -> Lease:
        """Set a trial RUNNING, and lease it."""
        now, token = self._memory.now, uuid.uuid4().hex
        trial.state, trial.started_at = TrialState.RUNNING, self._memory.utc_now()
        contents.leases[trial.trial_id] = MemoryLease(
            trial.trial_id, self._study_id, token, worker[:256], expires_at=now + lease_seconds, renewed_at=now
        )
        return Lease(trial.trial_id, trial.number, token)

    def _renew(self, contents: MemoryContents, heartbeats: Iterable[Heartbeat], lease_seconds: float) -> set[Lease]:
        by_token, held = {lease.token: lease for lease in contents.leases.values()}, set()
        for beat in heartbeats:
            row = by_token.get(beat.lease.token)
            trial = None if row is None else contents.trials.get(row.trial_id)
            if row is not None and trial is not None and trial.state == TrialState.RUNNING:
                row.renewed_at, row.expires_at = self._memory.now, self._memory.now + lease_seconds
                row.epoch, row.epochs_per_second, row.saved_epoch = beat.epoch, beat.epochs_per_second, beat.saved_epoch
                held.add(beat.lease)
        return held

    def _write_result(self, contents: MemoryContents, lease: Lease, result: TrialResult) -> None:
        trial, study = contents.trials[lease.trial_id], contents.studies[self._study_id]
        trial.system_attributes |= {**result.links, ENDED_BY_KEY: lease.token}
        for artifact in result.artifacts:
            if len(artifact.data) > MAX_ARTIFACT_BYTES:
                raise ValueError(f"an artifact in the database has at most {MAX_ARTIFACT_BYTES} bytes")
            artifact_id = str(uuid.uuid4())
            contents.artifacts[artifact_id] = artifact.data
            trial.system_attributes |= [artifact_link(artifact_id, artifact.filename)]
        trial.user_attributes |= through_json(dict(result.attributes))
        study.system_attributes |= notes.attributes(result.note, lease.trial_id)
        trial.value = trial.value if result.value is None else result.value
        trial.state, trial.completed_at = result.state, self._memory.utc_now()

    def _is_overdue(self, lease: MemoryLease, margin: float = 0.0) -> bool:
        """Return whether a lease ran out at least `margin` seconds ago, and the server is up for a whole period."""
        period, latest = lease.expires_at - lease.renewed_at, self._memory.now - margin
        return lease.expires_at < latest and self._memory.started_at + period < latest

    def _usage(self, contents: MemoryContents) -> Usage:
        study = contents.studies.get(self._study_id)
        times = study.system_attributes if study is not None else {}
        device = sum(row.seconds for row in contents.device_time.values() if row.study_id == self._study_id)
        wall = times.get(PAUSED_KEY, self._memory.now) - times[STARTED_KEY] if STARTED_KEY in times else 0.0
        return Usage(self._count_solved(contents), float(device), max(wall, 0.0))

    def _count_solved(self, contents: MemoryContents) -> int:
        trials = contents.trials_of(self._study_id)
        solved = [trial for trial in trials if trial.user_attributes.get("epochs_to_solve") is not None]
        return sum(trial.state == TrialState.COMPLETE for trial in solved)

    def _set_waiting(self, contents: MemoryContents, trial_ids: Iterable[int]) -> list[int]:
        """Set the RUNNING ones of these trials WAITING, and return their numbers, sorted."""
        trials = [contents.trials[i] for i in trial_ids if i in contents.trials]
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in running:
            trial.state = TrialState.WAITING
        return sorted(trial.number for trial in running)
