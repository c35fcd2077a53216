"""A thread that writes the results of trials that have ended."""

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
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState
from safetensors.numpy import save

from miiii_search import failpoints
from miiii_search.errors import StorageUnavailableError
from miiii_search.runs.run_folder import WEIGHTS
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, open_store
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES, Artifact, artifact_link
from miiii_search.storage.retry import DatabaseRetry, driver_message, is_database_error
from miiii_search.study.study import Study
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.life_events import LeaseLost, NotWritten, ResultEvent, ResultRefused, ResultWritten
from miiii_search.worker.trial_result import make_result


class TrialFinalizer:
    """A thread that draws and writes the results of one worker's trials. It waits while the database is unavailable.

    Args:
        study: The study.
        attributes: Attributes of the worker, which are stored with each trial.
        checkpoint_writer: Removes the checkpoints of trials that were written; None if the worker keeps none.
    """

    def __init__(
        self, study: Study, attributes: Mapping[str, object], checkpoint_writer: CheckpointWriter | None
    ) -> None:
        self._study = study
        self._attributes = attributes
        self._checkpoint_writer = checkpoint_writer
        self._store = open_store(study.artifact_store_url) if study.artifact_store_url else None
        self._retry = DatabaseRetry(is_logged=False)  # the main thread logs outages
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="finalizer")
        self._pending: list[Future[ResultEvent]] = []

    def submit(self, trial: ActiveTrial) -> Future[ResultEvent]:
        """Have the result of a trial that has ended written.

        Returns:
            A future of what became of it. It is `NotWritten` if the worker stops while the database is unavailable.
        """
        future = self._thread.submit(self._write, trial)
        self._pending = [*(f for f in self._pending if not f.done()), future]
        return future

    def close(self, deadline: float) -> None:
        """Wait for the results that are being written, until the deadline, in seconds of `time.monotonic`."""
        wait(self._pending, max(deadline - time.monotonic(), 0))
        self._stop.set()
        self._thread.shutdown(wait=False)

    def _write(self, trial: ActiveTrial) -> ResultEvent:
        failpoints.reach("result-ready")
        failed_epoch, retries = trial.history.progress.failed_epoch, trial.retries + 1
        try:
            if failed_epoch is not None and retries <= self._study.spec.max_retries:
                return self._retry_training(trial, failed_epoch, retries)
            return self._write_result(trial)
        except StorageUnavailableError:
            return NotWritten()  # the trial continues from its last checkpoint, on this worker or another one

    def _retry_training(self, trial: ActiveTrial, failed_epoch: int, retries: int) -> ResultEvent:
        """Return a trial whose loss was not finite to the queue."""
        queue, heartbeat = self._study.queue, trial.heartbeat()
        note = (
            f"Trial {trial.lease.number} is trained again, retry {retries} of {self._study.spec.max_retries}: "
            f"the loss was not finite at epoch {failed_epoch:,}."
        )
        requeued = self._retry.retry_until(lambda: queue.requeue_for_retry(heartbeat, retries, note), self._stop)
        return ResultRefused(note) if requeued else LeaseLost()

    def _write_result(self, trial: ActiveTrial) -> ResultEvent:
        """Write the result and the artifacts of a trial."""
        assert trial.history.final_state is not None
        result = make_result(trial, self._attributes)
        uploaded: list[str] = []
        if self._is_among_the_best(result):
            result = _add_weights(result, trial.history.final_state.weights)
        result = self._upload(result, uploaded)
        status, result = self._finish(trial.heartbeat(), result)
        if status != FinishStatus.WRITTEN:
            self._remove(uploaded)
        if status == FinishStatus.OVER_BUDGET:
            limit = self._study.spec.budget.solved
            return ResultRefused(
                f"Trial {trial.lease.number} went back to the queue: the budget of {limit} solved trials is spent"
            )
        if status == FinishStatus.LEASE_LOST:
            return LeaseLost()
        if self._checkpoint_writer is not None:
            self._checkpoint_writer.remove(trial.lease.trial_id)
        return ResultWritten(result.note)

    def _is_among_the_best(self, result: TrialResult) -> bool:
        """Return whether fewer than `keep_weights` completed trials of the study are at least as good, as of now."""
        if result.state != TrialState.COMPLETE or self._study.spec.keep_weights == 0:
            return False
        queue, value = self._study.queue, result.value
        assert value is not None
        count = self._retry.retry_until(lambda: queue.count_at_least_as_good(value), self._stop)
        return count < self._study.spec.keep_weights

    def _finish(self, heartbeat: Heartbeat, result: TrialResult) -> tuple[FinishStatus, TrialResult]:
        """Write a trial's result; without its artifacts if the database refuses to store them."""
        spec = self._study.spec

        def write() -> FinishStatus:
            return self._study.queue.finish(heartbeat, result, spec.budget.solved)

        try:
            return self._retry.retry_until(write, self._stop), result
        except Exception as error:
            if not is_database_error(error) or not result.artifacts:
                raise
            result = _drop_artifacts(result, driver_message(error))
            return self._retry.retry_until(write, self._stop), result

    def _upload(self, result: TrialResult, uploaded: list[str]) -> TrialResult:
        """Store the artifacts of a result in the study's own artifact store, if it has one.

        This happens before the database refers to them. If one cannot be stored, the trial gets no artifacts.

        Args:
            result: The result.
            uploaded: The ids of the stored artifacts are appended to it.

        Returns:
            The result, with links in place of the artifacts.
        """
        if self._store is None:
            return result
        links: dict[str, str] = {}
        try:
            for artifact in result.artifacts:
                uploaded.append(str(uuid.uuid4()))
                self._store.write(uploaded[-1], io.BytesIO(artifact.data))
                links |= [artifact_link(uploaded[-1], artifact.filename)]
        except ArtifactStoreUnavailableError as error:
            self._remove(uploaded)
            return _drop_artifacts(result, f"{self._study.artifact_store_url}: {error}")
        return replace(result, artifacts=[], links=links)

    def _remove(self, uploaded: list[str]) -> None:
        """Remove uploaded artifacts that the database will not refer to."""
        for artifact_id in uploaded:
            if self._store is not None:
                with contextlib.suppress(ArtifactNotFound, ArtifactStoreUnavailableError):
                    self._store.remove(artifact_id)


def _drop_artifacts(result: TrialResult, why: str) -> TrialResult:
    """Remove the artifacts from a result, and say why in its note."""
    note = f"{result.note} Its artifacts could not be stored: {why}."
    return replace(result, note=note, artifacts=[], attributes={**result.attributes, "artifacts": note})


def _add_weights(result: TrialResult, weights: Mapping[str, np.ndarray[Any, Any]]) -> TrialResult:
    """Add the weights to the artifacts of a result, unless they are too large for a database."""
    data = save(dict(weights))
    if len(data) > MAX_ARTIFACT_BYTES:
        return result
    return replace(result, artifacts=[*result.artifacts, Artifact(WEIGHTS, data)])
