"""Reading one study in a `MemoryDatabase`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from miiii_search.storage.abandoned import AbandonedTrial
from miiii_search.storage.artifacts import (
    STUDY_ARTIFACT_PREFIX,
    TRIAL_ARTIFACT_PREFIX,
    Attachment,
)
from miiii_search.storage.records import (
    StoredArtifacts,
    StoredCheckpoint,
    StudyContents,
    StudyCounts,
)
from miiii_search.storage.usage import Usage
from miiii_search.testing import _memory_rows
from miiii_search.testing.memory_database import MemoryContents, through_json
from miiii_search.testing.memory_trial_queue import MemoryTrialQueue
from miiii_search.testing.memory_trial_reader import MemoryTrialReader


class MemoryStudyReader(MemoryTrialReader):
    """Reads one study in a `MemoryDatabase`. See `StudyReader` for what each method does."""

    def _attributes(self, contents: MemoryContents) -> dict[str, Any]:
        study = contents.studies.get(self.identity.study_id)
        return {} if study is None else study.system_attributes

    def read_attributes(self, *keys: str) -> dict[str, Any]:
        """Do what `StudyReader.read_attributes` does."""
        with self._memory.reading() as contents:
            found: dict[str, Any] = through_json({k: v for k, v in self._attributes(contents).items() if k in keys})
            return found

    def now(self) -> float:
        """Do what `StudyReader.now` does."""
        with self._memory.reading():
            return self._memory.now

    def read_usage(self) -> Usage:
        """Do what `StudyReader.read_usage` does."""
        return MemoryTrialQueue(self._memory, self.identity.study_id).read_usage()

    def read_counts(self) -> StudyCounts:
        """Do what `StudyReader.read_counts` does."""
        with self._memory.reading() as contents:
            leases = [one for one in contents.leases.values() if one.study_id == self.identity.study_id]
            ages = [self._memory.now - lease.renewed_at for lease in leases]
            return StudyCounts(self.count_trials(), max([*ages, 0.0]))

    def find_abandoned(self) -> list[AbandonedTrial]:
        """Do what `StudyReader.find_abandoned` does."""
        return MemoryTrialQueue(self._memory, self.identity.study_id).find_abandoned()

    def read_contents(self) -> StudyContents:
        """Do what `StudyReader.read_contents` does."""
        with self._memory.reading() as contents:
            trials = {trial.trial_id for trial in self._trials(contents)}
            files = [contents.artifacts[i] for i in self.linked_artifact_ids() if i in contents.artifacts]
            saved = [row.data for trial_id, row in contents.checkpoints.items() if trial_id in trials]
            leases = [one for one in contents.leases.values() if one.study_id == self.identity.study_id]
            valid = [lease for lease in leases if lease.expires_at > self._memory.now]
            return StudyContents(len(trials), len(files), len(saved), sum(map(len, [*files, *saved])), len(valid))

    def linked_artifact_ids(self) -> list[str]:
        """Do what `StudyReader.linked_artifact_ids` does."""
        with self._memory.reading() as contents:
            prefixes = (TRIAL_ARTIFACT_PREFIX, STUDY_ARTIFACT_PREFIX)
            keys = [key for key in self._attributes(contents) if key.startswith(prefixes)]
            keys += [key for trial in self._trials(contents) for key in artifact_links(trial.system_attributes)]
            return sorted({key.rpartition(":")[2] for key in keys})

    def find_attachments(self, trial_ids: Collection[int]) -> list[Attachment]:
        """Do what `StudyReader.find_attachments` does."""
        with self._memory.reading() as contents:
            found = []
            for key in sorted(self._attributes(contents)):
                trial_id, _, artifact_id = key.removeprefix(STUDY_ARTIFACT_PREFIX).partition(":")
                if key.startswith(STUDY_ARTIFACT_PREFIX) and trial_id in map(str, trial_ids):
                    found.append(Attachment(key, int(trial_id), artifact_id))
            return found

    def find_artifacts(self, trial_ids: Collection[int]) -> StoredArtifacts:
        """Do what `StudyReader.find_artifacts` does."""
        with self._memory.reading() as contents:
            trials = [contents.trials[i] for i in trial_ids if i in contents.trials]
            links = [(trial.trial_id, key) for trial in trials for key in artifact_links(trial.system_attributes)]
            attachments = self.find_attachments(trial_ids)
            ids = [key.removeprefix(TRIAL_ARTIFACT_PREFIX) for _, key in links]
            ids += [file.artifact_id for file in attachments]
            size = sum(len(contents.artifacts.get(artifact_id, b"")) for artifact_id in set(ids))
            with_files = {trial_id for trial_id, _ in links} | {file.trial_id for file in attachments}
            return StoredArtifacts(frozenset(with_files), tuple(ids), size)

    def has_artifact(self, artifact_id: str) -> bool:
        """Do what `StudyReader.has_artifact` does."""
        with self._memory.reading() as contents:
            return artifact_id in contents.artifacts

    def read_artifact(self, artifact_id: str) -> bytes | None:
        """Do what `StudyReader.read_artifact` does."""
        with self._memory.reading() as contents:
            return contents.artifacts.get(artifact_id)

    def read_rows(self) -> dict[str, Any]:
        """Do what `StudyReader.read_rows` does."""
        with self._memory.reading() as contents:
            return _memory_rows.read_rows(contents, self.identity.study_id, self._memory.now)

    def read_checkpoints(self) -> list[StoredCheckpoint]:
        """Do what `StudyReader.read_checkpoints` does."""
        with self._memory.reading() as contents:
            ids = [trial.trial_id for trial in self._trials(contents) if trial.trial_id in contents.checkpoints]
            return [StoredCheckpoint(trial_id, contents.checkpoints[trial_id].epoch) for trial_id in ids]

    def read_checkpoint_data(self, trial_id: int) -> bytes:
        """Do what `StudyReader.read_checkpoint_data` does."""
        with self._memory.reading() as contents:
            if trial_id not in contents.checkpoints:
                raise sa.exc.NoResultFound("there is no such checkpoint")
            return contents.checkpoints[trial_id].data


def artifact_links(attributes: Mapping[str, Any]) -> list[str]:
    """Return the keys that link artifacts."""
    return [key for key in attributes if key.startswith(TRIAL_ARTIFACT_PREFIX)]
