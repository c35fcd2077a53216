"""Snapshots of the weights of running trials, as files for later analysis."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from miiii_search.errors import reason
from miiii_search.experiment.record import WeightSnapshot, write_snapshot
from miiii_search.study.snapshots import claim_folder, trial_folder
from miiii_search.study.study import Study

logger = logging.getLogger(__name__)


class SnapshotWriter:
    """Writes weight snapshots into a study's own folder below `folder`."""

    def __init__(self, folder: Path, study: Study) -> None:
        self._folder = folder
        self._study = study
        with contextlib.suppress(OSError):  # `write` logs each snapshot that cannot be written
            claim_folder(folder, study)

    def write(self, trial: int, snapshot: WeightSnapshot) -> None:
        """Write one snapshot of the trial with this number. A failure is logged and changes nothing else."""
        try:
            write_snapshot(trial_folder(self._folder, self._study, trial), snapshot)
        except OSError as error:
            logger.warning(
                f"the snapshot of trial {trial} at epoch {snapshot.epoch:,} was not written: {reason(error)}",
                extra={"study": self._study.name, "trial": trial, "epoch": snapshot.epoch},
            )
