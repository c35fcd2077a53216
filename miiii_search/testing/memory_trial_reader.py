"""Reading the trials of a study in a `MemoryDatabase`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.search_space import Point
from miiii_search.errors import StudyDeletedError
from miiii_search.storage.records import (
    DETAILED_TRIALS,
    FINISHED_STATES,
    FinishedTrial,
    KnownTrials,
    PeerReports,
    PrunedTrial,
    RunningTrial,
    StudyIdentity,
    TrialRef,
    WaitingTrial,
)
from miiii_search.storage.study_reader import StudyReader
from miiii_search.storage.trial_attrs import REPLICATE_KEY, SHAPE_KEY
from miiii_search.study.best_trials import best_first_key
from miiii_search.testing.memory_database import MemoryContents, MemoryDatabase, MemoryTrial

RUNNING, WAITING = TrialState.RUNNING, TrialState.WAITING


class MemoryTrialReader(StudyReader):
    """Reads the trials of one study in a `MemoryDatabase`. See `TrialReader` for what each method does.

    Args:
        memory: The database.
        identity: The study.
    """

    def __init__(self, memory: MemoryDatabase, identity: StudyIdentity) -> None:
        self._memory = memory
        self.identity = identity
        """The study."""

    def _trials(self, contents: MemoryContents) -> list[MemoryTrial]:
        return contents.trials_of(self.identity.study_id)

    def _finished(self, contents: MemoryContents, complete: bool = False) -> list[MemoryTrial]:
        """Return the finished trials, best first."""
        states = FINISHED_STATES[:1] if complete else FINISHED_STATES
        found = [trial for trial in self._trials(contents) if trial.state in states]
        return sorted(found, key=lambda trial: best_first_key(trial.value, trial.number, trial.state))

    def deleted_error(self) -> StudyDeletedError:
        """Do what `TrialReader.deleted_error` does."""
        return StudyDeletedError(f"study `{self.identity.name}` was deleted")

    def read_all_trials(self) -> list[FrozenTrial]:
        """Do what `TrialReader.read_all_trials` does."""
        with self._memory.reading() as contents:
            if self.identity.study_id not in contents.studies:
                raise self.deleted_error()
            return [trial.to_optuna() for trial in self._trials(contents)]

    def read_trials(self, trial_ids: Collection[int]) -> dict[int, FrozenTrial]:
        """Do what `TrialReader.read_trials` does."""
        return {trial._trial_id: trial for trial in self.read_all_trials() if trial._trial_id in trial_ids}

    def find_trial(self, number: int) -> int | None:
        """Do what `TrialReader.find_trial` does."""
        with self._memory.reading() as contents:
            return next((trial.trial_id for trial in self._trials(contents) if trial.number == number), None)

    def count_trials(self) -> dict[TrialState, int]:
        """Do what `TrialReader.count_trials` does."""
        with self._memory.reading() as contents:
            states = [trial.state for trial in self._trials(contents)]
            return {state: states.count(state) for state in TrialState}

    def has_trials(self) -> bool:
        """Do what `TrialReader.has_trials` does."""
        with self._memory.reading() as contents:
            return bool(self._trials(contents))

    def read_finished_ids(self, n: int | None = None, *, complete: bool = False) -> list[int]:
        """Do what `TrialReader.read_finished_ids` does."""
        with self._memory.reading() as contents:
            return [trial.trial_id for trial in self._finished(contents, complete)][:n]

    def read_numbers(self, trial_ids: Collection[int]) -> list[int]:
        """Do what `TrialReader.read_numbers` does."""
        with self._memory.reading() as contents:
            return sorted(contents.trials[i].number for i in set(trial_ids) if i in contents.trials)

    def read_best_first_replicates(self, n: int) -> list[TrialRef]:
        """Do what `TrialReader.read_best_first_replicates` does."""
        with self._memory.reading() as contents:
            found = [t for t in self._finished(contents, True) if t.system_attributes.get(REPLICATE_KEY) == 0]
            return [TrialRef(trial.trial_id, trial.number) for trial in found[:n]]

    def read_points(self) -> dict[int, tuple[Point, int]]:
        """Do what `TrialReader.read_points` does."""
        with self._memory.reading() as contents:
            return {
                trial.trial_id: (dict(trial.params), int(trial.system_attributes.get(REPLICATE_KEY, 0)))
                for trial in self._trials(contents)
            }

    def read_points_by_id(self, trial_ids: Collection[int]) -> dict[int, Point]:
        """Do what `TrialReader.read_points_by_id` does."""
        with self._memory.reading() as contents:
            found = [contents.trials[i] for i in sorted(trial_ids) if i in contents.trials]
            return {trial.trial_id: dict(trial.params) for trial in found if trial.params}

    def read_finished_trials(self, known: Mapping[int, FinishedTrial]) -> dict[int, FinishedTrial]:
        """Do what `TrialReader.read_finished_trials` does."""
        with self._memory.reading() as contents:
            found = {trial.trial_id: trial for trial in self._finished(contents)}
            kept = {trial_id: trial for trial_id, trial in known.items() if trial_id in found}
            new = {
                trial_id: FinishedTrial(
                    trial_id,
                    trial.number,
                    trial.state,
                    trial.value,
                    dict(trial.params),
                    trial.user_attributes.get("epochs_to_solve"),
                )
                for trial_id, trial in found.items()
                if trial_id not in known
            }
            return {**kept, **new}

    def read_pruned_trials(self, last: int | None = None) -> list[PrunedTrial]:
        """Do what `TrialReader.read_pruned_trials` does."""

        def order(trial: MemoryTrial) -> tuple[bool, datetime, int]:
            return trial.completed_at is None, trial.completed_at or datetime.min, trial.number

        with self._memory.reading() as contents:
            pruned = sorted((t for t in self._trials(contents) if t.state == TrialState.PRUNED), key=order)
            kept = pruned if last is None else pruned[len(pruned) - min(last, len(pruned)) :]
            return [
                PrunedTrial(t.number, t.user_attributes.get("epochs_trained"), t.user_attributes.get("reason"))
                for t in kept
            ]

    def count_parameter_values(self) -> dict[str, int]:
        """Do what `TrialReader.count_parameter_values` does."""
        with self._memory.reading() as contents:
            trials = self._finished(contents)
            names = {name for trial in trials for name in trial.params}
            missing = object()
            return {name: len({trial.params.get(name, missing) for trial in trials}) for name in names}

    def mean_epochs_trained(self) -> float | None:
        """Do what `TrialReader.mean_epochs_trained` does."""
        with self._memory.reading() as contents:
            recorded = [trial.user_attributes.get("epochs_trained") for trial in self._trials(contents)]
            epochs = [float(one) for one in recorded if one is not None]
            return sum(epochs) / len(epochs) if epochs else None

    def read_running_trials(self) -> tuple[list[RunningTrial], bool]:
        """Do what `TrialReader.read_running_trials` does."""
        now = self._memory.now
        with self._memory.reading() as contents:
            trials = [t for t in self._trials(contents) if t.state == RUNNING and t.trial_id in contents.leases]
            running = []
            for k, trial in enumerate(trials):
                lease, is_detailed = contents.leases[trial.trial_id], k < DETAILED_TRIALS
                running.append(
                    RunningTrial(
                        number=trial.number,
                        worker=lease.worker,
                        epoch=lease.epoch,
                        epochs_per_second=lease.epochs_per_second,
                        silent_seconds=max(now - lease.renewed_at, 0.0),
                        saved_epoch=lease.saved_epoch,
                        curve=tuple(trial.reports[epoch] for epoch in sorted(trial.reports)) if is_detailed else (),
                        params=dict(trial.params) if is_detailed else {},
                    )
                )
            return running, any(contents.leases[trial.trial_id].expires_at > now for trial in trials)

    def read_known_trials(self, max_waiting: int, excluded_shapes: Collection[str] = ()) -> KnownTrials:
        """Do what `TrialReader.read_known_trials` does."""

        def order(trial: MemoryTrial) -> tuple[Any, int]:
            return trial.completed_at or trial.started_at or datetime.min, trial.number

        with self._memory.reading() as contents:
            known = KnownTrials()
            trials = [trial for trial in self._trials(contents) if SHAPE_KEY in trial.system_attributes]
            for trial in sorted((one for one in trials if one.state != WAITING), key=order):
                if trial.state == RUNNING:
                    known.running.append(trial.trial_id)
                else:
                    known.finished[trial.trial_id] = None if trial.state == TrialState.FAIL else trial.value
            for trial in trials:
                shape, replicate = (trial.system_attributes.get(key, 0) for key in (SHAPE_KEY, REPLICATE_KEY))
                if trial.state == WAITING and shape not in excluded_shapes:
                    was_started = trial.started_at is not None
                    known.waiting.append(WaitingTrial(trial.trial_id, int(replicate), shape, was_started))
            known.waiting = known.waiting[:max_waiting]
            return known

    def read_peer_reports(self, epochs: Collection[int], known: Collection[int] = ()) -> PeerReports:
        """Do what `TrialReader.read_peer_reports` does."""
        with self._memory.reading() as contents:
            trials = self._trials(contents)
            finished = {trial.trial_id: trial.state for trial in trials if trial.state.is_finished()}
            last = {
                trial.trial_id: {max(trial.reports): trial.reports[max(trial.reports)]} if trial.reports else {}
                for trial in trials
                if trial.trial_id in finished and trial.trial_id not in known
            }
            at_epochs = [
                (trial.trial_id, trial.state, epoch, value)
                for trial in trials
                for epoch, value in trial.reports.items()
                if epoch in epochs
            ]
            return PeerReports(finished, last, at_epochs)
