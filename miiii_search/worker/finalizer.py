"""What is written of a trial that has ended: its state, its figures, its artifacts; or that it is tried again."""

from __future__ import annotations

import contextlib
import io
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState
from safetensors.numpy import save

from miiii_search.errors import StorageUnavailableError, reason
from miiii_search.experiment.metrics import Metrics, format_accuracy, summarize
from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment
from miiii_search.runs.run_folder import RECORD, WEIGHTS
from miiii_search.storage import schema
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, open_store
from miiii_search.storage.artifacts import LEARNING_CURVES, MAX_ARTIFACT_BYTES, Artifact, artifact_link
from miiii_search.storage.retry import DatabaseRetry, driver_message
from miiii_search.study.objective import objective
from miiii_search.study.study import Study
from miiii_search.study.trials import METRICS_KEY
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.trainer_messages import FinalState
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import FinishStatus, TrialResult, finish, requeue_for_retry
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.checkpoint_writer import CheckpointWriter


class TrialFinalizer:
    """A thread that draws and writes what is known of one worker's trials that have ended.

    While the database is away it waits. `attributes` are kept with every trial's own.
    """

    def __init__(self, study: Study, attributes: Mapping[str, object], writer: CheckpointWriter | None) -> None:
        self._study = study
        self._attributes = attributes
        self._checkpoint_writer = writer
        self._store = open_store(study.artifact_store_url) if study.artifact_store_url else None
        self._retry = DatabaseRetry(is_logged=False)
        self._given_up = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="finalizer")
        self._pending: list[Future[str | None]] = []

    def end(self, assignment: ActiveTrial) -> Future[str | None]:
        """Writes everything about a trial that has ended; comes to its note, or to None if it was lost meanwhile."""
        future = self._thread.submit(self._write, assignment)
        self._pending = [*(f for f in self._pending if not f.done()), future]
        return future

    def close(self, deadline: float) -> None:
        """Waits for what is being written, until the deadline."""
        wait(self._pending, max(deadline - time.monotonic(), 0))
        self._given_up.set()
        self._thread.shutdown(wait=False)

    def _write(self, assignment: ActiveTrial) -> str | None:
        assert assignment.end is not None
        lease, heartbeat, spec = assignment.lease, assignment.heartbeat(), self._study.spec
        database, failed_epoch, retries = self._study.database, assignment.progress.failed_epoch, assignment.retries + 1
        if failed_epoch is not None and retries <= spec.max_retries:
            note = (
                f"Trial {lease.number} is tried again, {retries} of {spec.max_retries}: "
                f"the loss was not finite at epoch {failed_epoch:,}."
            )
            try:
                retried = self._retry.retry_until(
                    lambda: requeue_for_retry(database, heartbeat, retries, note), self._given_up
                )
            except StorageUnavailableError:
                return None
            return note if retried else None
        ended = outcome(
            lease.number,
            assignment.experiment,
            assignment.progress,
            assignment.record(),
            assignment.spectra,
            assignment.end,
            assignment.pruned,
            {"seconds": assignment.seconds, "resumed": assignment.resumed(), **self._attributes},
        )
        limit, uploaded = spec.budget.solved, list[str]()
        try:
            if self._is_among_the_best(ended):
                ended = _with_weights(ended, assignment.end.weights)
            ended = self._upload(ended, uploaded)
            ending, ended = self._finish(heartbeat, ended)
        except StorageUnavailableError:
            return None  # it goes on from its last checkpoint, elsewhere or here
        if ending != FinishStatus.WRITTEN:
            self._remove(uploaded)
        if ending == FinishStatus.OVER_BUDGET:
            return f"Trial {lease.number} went back to the queue: the budget of {limit} solved trials is spent"
        if ending == FinishStatus.LEASE_LOST:
            return None
        if self._checkpoint_writer is not None:
            self._checkpoint_writer.remove(lease.trial_id)
        return ended.note

    def _is_among_the_best(self, ended: TrialResult) -> bool:
        """Whether fewer than `keep_weights` completed trials of the study are as good or better, as of now."""
        if ended.state != TrialState.COMPLETE or self._study.spec.keep_weights == 0:
            return False
        trials, values = schema.trials, schema.trial_values
        query = (
            sa.select(sa.func.count())
            .select_from(trials.join(values, values.c.trial_id == trials.c.trial_id))
            .where(trials.c.study_id == self._study.study_id, trials.c.state == TrialState.COMPLETE)
            .where(values.c.value >= ended.value)
        )

        def count() -> int:
            with self._study.database.engine.connect() as connection:
                return int(connection.execute(query).scalar_one())

        return self._retry.retry_until(count, self._given_up) < self._study.spec.keep_weights

    def _finish(self, heartbeat: Heartbeat, ended: TrialResult) -> tuple[FinishStatus, TrialResult]:
        """Writes a trial's end; without its artifacts, if the database refuses to store those."""
        spec = self._study.spec

        def write() -> FinishStatus:
            return finish(self._study.database, self._study.study_id, heartbeat, ended, spec.budget.solved)

        try:
            return self._retry.retry_until(write, self._given_up), ended
        except sa.exc.DBAPIError as error:
            if not ended.artifacts:
                raise
            ended = _without_artifacts(ended, driver_message(error))
            return self._retry.retry_until(write, self._given_up), ended

    def _upload(self, ended: TrialResult, uploaded: list[str]) -> TrialResult:
        """The outcome with its artifacts stored where the study keeps them, if that is not the database.

        Before anything points to them; their ids are added to `uploaded`. What cannot be stored is done without.
        """
        if self._store is None:
            return ended
        links: dict[str, str] = {}
        try:
            for artifact in ended.artifacts:
                uploaded.append(str(uuid.uuid4()))
                self._store.write(uploaded[-1], io.BytesIO(artifact.data))
                links |= [artifact_link(uploaded[-1], artifact.filename)]
        except ArtifactStoreUnavailableError as error:
            self._remove(uploaded)
            return _without_artifacts(ended, f"{self._study.artifact_store_url}: {error}")
        return replace(ended, artifacts=[], links=links)

    def _remove(self, uploaded: list[str]) -> None:
        """Removes artifacts that nothing will point to."""
        for artifact_id in uploaded:
            if self._store is not None:
                with contextlib.suppress(ArtifactNotFound, ArtifactStoreUnavailableError):
                    self._store.remove(artifact_id)


def _without_artifacts(ended: TrialResult, why: str) -> TrialResult:
    note = f"{ended.note} Its artifacts could not be stored: {why}."
    return replace(ended, note=note, artifacts=[], attributes={**ended.attributes, "artifacts": note})


def _with_weights(ended: TrialResult, weights: Mapping[str, np.ndarray[Any, Any]]) -> TrialResult:
    """Unless they are too large for a database."""
    data = save(dict(weights))
    if len(data) > MAX_ARTIFACT_BYTES:
        return ended
    return replace(ended, artifacts=[*ended.artifacts, Artifact(WEIGHTS, data)])


def outcome(
    number: int,
    experiment: Experiment,
    progress: RunProgress,
    record: Record,
    spectra: Mapping[int, Floats],
    end: FinalState,
    pruned: str | None,
    attributes: Mapping[str, object],
) -> TrialResult:
    """How trial `number` ended; `pruned` is why it was given up, if it was. `attributes` are kept with its own."""
    own: dict[str, object] = {
        **attributes,
        "epochs_trained": progress.epoch,
        "epochs_to_solve": progress.solved_epoch,
        "seed": experiment.seed,
    }
    if progress.failed_epoch is not None:
        state, value = TrialState.FAIL, None
        note = f"Trial {number} failed: the loss was not finite at epoch {progress.failed_epoch:,}."
        own |= {"failed_epoch": progress.failed_epoch, "reason": note}
    else:
        metrics = summarize(experiment, record, progress.solved_epoch, end.final_metrics, end.weights)
        state, value, ending = _final_state(experiment, metrics, pruned)
        note = f"Trial {number} {ending}"
        moduli = [str(q) for q in metrics.moduli]
        own |= {
            "validation_accuracy": dict(zip(moduli, metrics.validation_accuracy, strict=True)),
            "test_accuracy": dict(zip(moduli, metrics.test_accuracy, strict=True)),
            METRICS_KEY: metrics.model_dump(mode="json", exclude_none=True),
        }
        if pruned is not None:
            own["reason"] = pruned
    artifacts = [Artifact(RECORD, record.to_npz(spectra, moduli=np.asarray(experiment.moduli)))]
    try:
        artifacts.insert(0, Artifact(LEARNING_CURVES, draw_curves(experiment, record, note, progress.solved_epoch)))
    except Exception as error:
        note = f"{note} Its learning curves could not be drawn: {reason(error)}."
    return TrialResult(state, value, note, own, artifacts, is_solved=progress.solved_epoch is not None)


def draw_curves(experiment: Experiment, record: Record, title: str, solved_epoch: int | None) -> bytes:
    """Draws the learning curves of a trial. Raises whatever matplotlib does; even importing it may fail."""
    from miiii_search.analysis.figures.curves import learning_curves

    return learning_curves(experiment, record, title, solved_epoch)


def _final_state(experiment: Experiment, metrics: Metrics, pruned: str | None) -> tuple[TrialState, float, str]:
    """State, objective and the end of a sentence about a trial that ended with a finite loss."""
    accuracy, solved = metrics.validation_accuracy_mean, metrics.epochs_to_solve
    if solved is not None:
        test = float(np.mean(np.asarray(metrics.test_accuracy)[np.asarray(experiment.scored)]))
        ending = (
            f"solved every task at epoch {solved:,} of {experiment.epochs:,} (test accuracy {format_accuracy(test)})."
        )
        return TrialState.COMPLETE, objective(experiment, accuracy, solved), ending
    if pruned is not None:
        return TrialState.PRUNED, accuracy, f"was pruned: {pruned}."
    reached = sum(
        a > experiment.accuracy_threshold
        for a, scored in zip(metrics.validation_accuracy, experiment.scored, strict=True)
        if scored
    )
    ending = (
        f"was not solved in {experiment.epochs:,} epochs: validation accuracy {format_accuracy(accuracy)}, "
        f"{reached} of {sum(experiment.scored)} tasks at {experiment.target_accuracy:g}."
    )
    return TrialState.COMPLETE, objective(experiment, accuracy, None), ending
