"""The command `work`: a process that opens a study, trains its trials, and may then wait for more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from miiii_search.cli.exits import exit_now, exit_refused
from miiii_search.cli.output import print_line, report_removed_variables
from miiii_search.cli.resolve import open_storage, open_study, wait_until_compatible
from miiii_search.errors import AccessRefusedError, StudyDeletedError, VersionMismatchError

if TYPE_CHECKING:
    from miiii_search.metrics.prometheus import Metric, WorkerCounters
    from miiii_search.study.study import Study
    from miiii_search.worker.worker import Worker

T = TypeVar("T")

REFUSAL_SECONDS, REFUSAL_PAUSE_SECONDS = 60.0, 5.0
"""For how long and how often a worker with `--idle-when-refused` retries a refused login when it starts."""


@dataclass(frozen=True)
class WorkerProcessOptions:
    """The options of `work`."""

    study_name: str | None
    storage: str
    lanes: int | None
    """Number of trials to train at a time; None: as many as train fastest."""
    snapshots: Path | None
    checkpoints: Path
    checkpoint_every: float
    """Seconds between two checkpoint files of a trial."""
    share_every: float
    """Seconds between two copies of a checkpoint in the database."""
    grace: float
    """Seconds that saving may take after a request to stop."""
    any_version: bool
    device: str
    keep_running: bool
    liveness_file: Path | None
    exit_code_on_stop: int
    idle_when_refused: bool
    metrics_port: int | None
    metrics_host: str
    name: str | None
    with_parent: bool


class WorkerProcess:
    """The process of a worker.

    Args:
        options: The options of `work`.
        stop: Set when the process is requested to stop.
    """

    def __init__(self, options: WorkerProcessOptions, stop: threading.Event) -> None:
        from miiii_search.deployment.liveness import Liveness

        self._options = options
        self._stop = stop
        self._touch_liveness = Liveness(options.liveness_file)
        self._worker: Worker | None = None

    def run(self) -> None:
        """Train until the study is done, or until a request to stop, which ends the process.

        Raises:
            MiiiiSearchError: The study cannot be opened or trained.
        """
        options = self._options
        try:
            study = self._open_study()
            if study is None:
                exit_now(options.exit_code_on_stop)
            self._prepare_training()
            self._train_and_serve_metrics(study)
        except AccessRefusedError as error:
            exit_refused(error, options.idle_when_refused and not self._stop.is_set())
        if self._stop.is_set():
            exit_now(options.exit_code_on_stop)

    def _open_study(self) -> Study | None:
        """Open a study that this version may train.

        With `--keep-running`, wait for one; then the result is None after a request to stop.
        """
        if self._options.keep_running:
            return wait_until_compatible(self._find_study, self._check_version, self._stop, self._touch_liveness)
        study = self._find_study()
        if study is not None:
            self._check_version(study)
        return study

    def _find_study(self) -> Study | None:
        """Open the study; with `--keep-running`, wait until it exists. None after a request to stop."""
        options = self._options
        if not options.keep_running:
            return self._retry_refused(
                lambda: open_study(options.study_name, options.storage, quiet=options.with_parent)
            )
        from miiii_search.coordinator.coordinator import wait_for_study

        database = self._retry_refused(lambda: open_storage(options.storage, quiet=options.with_parent))
        return wait_for_study(database, options.study_name, self._stop, self._touch_liveness)

    def _retry_refused(self, open_: Callable[[], T]) -> T:
        """Call a function; with `--idle-when-refused`, call it again for a minute while the login is refused."""
        deadline = time.monotonic() + (REFUSAL_SECONDS if self._options.idle_when_refused else 0.0)
        while True:
            try:
                return open_()
            except AccessRefusedError:
                if time.monotonic() >= deadline or self._stop.wait(REFUSAL_PAUSE_SECONDS):
                    raise

    def _check_version(self, study: Study) -> None:
        study.check_version(self._options.any_version)

    def _prepare_training(self) -> None:
        """Import JAX and select the device."""
        from miiii_search.training.jax_environment import import_jax

        report_removed_variables()
        import_jax()
        from miiii_search.training.device import choose_device, describe_device, use_compilation_cache

        choose_device(self._options.device)
        use_compilation_cache()
        print_line(f"worker on {describe_device()}, lanes: {self._options.lanes or 'auto'}")

    def _train_and_serve_metrics(self, study: Study | None) -> None:
        """Train one study; with `--keep-running`, also the next one of this name if it is deleted.

        If a newer version changes the study meanwhile, `--keep-running` waits until this version can read it.
        """
        from miiii_search.metrics import prometheus

        options = self._options
        counters = prometheus.WorkerCounters()

        def read_metrics() -> list[Metric]:
            return self._worker.metrics() if self._worker else []

        with prometheus.serve(read_metrics, options.metrics_host, options.metrics_port):
            while study is not None:
                try:
                    self._train(study, counters)
                    return
                except (StudyDeletedError, VersionMismatchError) as error:
                    if not options.keep_running:
                        raise
                    print_line(str(error))
                    study = self._open_study()

    def _train(self, study: Study, counters: WorkerCounters) -> None:
        """Train a study until it is done; with `--keep-running`, also whenever it is extended."""
        from miiii_search.coordinator.coordinator import wait_for_work

        self._start_worker(study, counters).run(self._stop)
        while self._options.keep_running and not self._stop.is_set():
            print_line(f"study `{study.name}` is done; waiting for more")
            if wait_for_work(study, self._stop, self._touch_liveness):
                self._start_worker(study, counters).run(self._stop)

    def _start_worker(self, study: Study, counters: WorkerCounters) -> Worker:
        from miiii_search.worker.options import CheckpointPolicy, WorkerOptions
        from miiii_search.worker.worker import Worker

        options = self._options
        worker_options = WorkerOptions(
            name=options.name,
            checkpoints=CheckpointPolicy(options.checkpoints, options.checkpoint_every, options.share_every),
            snapshots=options.snapshots,
            any_version=options.any_version,
            grace_seconds=options.grace,
        )
        self._worker = Worker(study, options.lanes, worker_options, on_turn=self._touch_liveness, counters=counters)
        return self._worker
