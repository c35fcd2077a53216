"""The command `coordinate`: a process that creates a study and supervises it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from miiii_search.cli.output import print_line
from miiii_search.cli.resolve import installation_keys, open_storage, wait_until_compatible
from miiii_search.cli.study_request import StudyRequest, open_or_create
from miiii_search.errors import StudyDeletedError, VersionMismatchError

if TYPE_CHECKING:
    from miiii_search.study.study import Study


@dataclass(frozen=True)
class CoordinatorProcessOptions:
    """The options of `coordinate`."""

    request: StudyRequest
    keep: bool
    """Whether to keep the specification of an existing study even if the options describe another one."""
    keep_running: bool
    liveness_file: Path | None
    keys: Path | None
    access: Path | None
    metrics_port: int | None
    metrics_host: str


class CoordinatorProcess:
    """The process of a coordinator.

    Args:
        options: The options of `coordinate`.
        stop: Set when the process is requested to stop.
    """

    def __init__(self, options: CoordinatorProcessOptions, stop: threading.Event) -> None:
        from miiii_search.deployment.liveness import Liveness
        from miiii_search.metrics import prometheus

        self._options = options
        self._stop = stop
        self._touch_liveness = Liveness(options.liveness_file)
        self._metrics = prometheus.CoordinatorMetrics()

    def run(self) -> None:
        """Supervise until the study is done, or until a request to stop.

        Raises:
            StudyDeletedError: The study was deleted, and `--keep-running` is not given.
            MiiiiSearchError: The study cannot be created or opened.
        """
        from miiii_search.coordinator.coordinator import wait_for_study
        from miiii_search.metrics import prometheus

        options = self._options
        name = options.request.name
        self._create_local_worker()
        with prometheus.serve(self._metrics.read, options.metrics_host, options.metrics_port):
            while not self._stop.is_set():
                try:
                    study = self._open_study()
                    if study is not None:
                        self._supervise(study)
                    return
                except VersionMismatchError:  # a newer version has changed the study meanwhile
                    if not options.keep_running:
                        raise
                    continue
                except StudyDeletedError:
                    # Another program may have deleted it, such as optuna-dashboard, which leaves no record of it.
                    open_storage(options.request.storage).studies.record_deletion(name)
                    if not options.keep_running:
                        raise
                wait_for_study(open_storage(options.request.storage), name, self._stop, self._touch_liveness)

    def _create_local_worker(self) -> None:
        """Create the database role of the local worker, in an installation of containers."""
        options = self._options
        if options.keys and options.access:
            from miiii_search.deployment.invite import create_local_worker

            create_local_worker(
                open_storage(options.request.storage, create=True), installation_keys(options.keys, options.access)
            )

    def _open_study(self) -> Study | None:
        """Open or create the study; with `--keep-running`, wait while this version cannot read it."""

        def open_() -> Study:
            return open_or_create(self._options.request, keep=self._options.keep, recreate=False)

        if not self._options.keep_running:
            return open_()
        # Only workers have to be of the version of the study. A coordinator just has to be able to read it.
        return wait_until_compatible(open_, lambda study: None, self._stop, self._touch_liveness)

    def _supervise(self, study: Study) -> None:
        """Supervise a study until it is done; with `--keep-running`, also whenever it is extended."""
        from miiii_search.coordinator.coordinator import supervise, wait_for_work
        from miiii_search.coordinator.other_studies import describe_unfinished_studies

        for line in describe_unfinished_studies(study):
            print_line(line)
        update_metrics = self._metrics.update
        while True:
            done = supervise(study, self._stop, self._touch_liveness, update_metrics)
            print_line(f"study `{study.name}` is done" if done else "stopped; the same command continues")
            if not (
                done
                and self._options.keep_running
                and wait_for_work(study, self._stop, self._touch_liveness, update_metrics)
            ):
                return
