"""An open study: its specification, its state, and reading its trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.overrides import to_tree
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError, VersionMismatchError
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.database import Database
from miiii_search.storage.records import StudyCounts, StudyIdentity
from miiii_search.storage.study_attrs import CREATED_KEY, ID_KEY, PAUSED_KEY, PROGRAMS_KEY, SELECTED_KEY, SPEC_KEY
from miiii_search.storage.study_store import StudyStore
from miiii_search.storage.trial_attrs import REPLICATE_KEY
from miiii_search.study.state import is_done
from miiii_search.study.stored_spec import parse_spec
from miiii_search.training.version import TRAINING_PROGRAM
from miiii_search.trial_queue.budget import read_exhausted_limit
from miiii_search.trial_queue.trial_queue import TrialQueue

IDENTITY_KEYS = (ID_KEY, CREATED_KEY)
"""Attributes that tell a study apart from a later one with the same `study_id`."""


@dataclass
class Study:
    """An open study. Its fields are as of the last `refresh`; other processes may have changed the study since."""

    database: Database
    name: str
    study_id: int
    spec: StudySpec
    version: str | None = None
    """Version of this package that created the study, if known."""
    paused: bool = False
    artifact_store_url: str | None = None
    """URL of the artifact store; None if the database stores the artifacts."""
    created_at: float | None = None
    """Time of creation, in seconds since 1970 by the database's clock."""
    selection: Mapping[str, Any] | None = None
    """Selection of the configurations with further seeds: `trials` are the numbers of their first trials, `n_trials`
    is the number of trials since. None before the selection; see `promote`."""
    id: str | None = None
    """Random identity of the study. No other study ever has it, whereas SQLite reuses the `study_id` of a deleted
    study. None if the study has no identity yet and the database refuses to write one."""
    programs: tuple[int, ...] = (TRAINING_PROGRAM,)
    """Numbers of the training programs that may train the study; see `admit_program`."""
    origins: tuple[tuple[str, float], ...] = ()
    """Earlier identities of an imported study, newest first, each with the time of its export."""

    def __post_init__(self) -> None:
        self._stored_spec: Any = to_tree(self.spec)
        """The spec as it was last read, perhaps in an older format. It is parsed again only if it has changed."""

    @cached_property
    def queue(self) -> TrialQueue:
        """The queue of the study's trials."""
        return TrialQueue(self.database, self.study_id)

    @property
    def attributes_at_refresh(self) -> dict[str, Any]:
        """Attributes on which a new trial depends, as of the last `refresh`: the specification and the identity.

        None stands for a missing attribute.
        """
        identity = {CREATED_KEY: self.created_at} | ({} if self.id is None else {ID_KEY: self.id})
        return {SPEC_KEY: self._stored_spec, **identity}

    @cached_property
    def store(self) -> StudyStore:
        """The store that reads and changes the study."""
        return self.database.studies.store(StudyIdentity(self.study_id, self.name, self.created_at, self.id))

    @property
    def identity(self) -> str:
        """The study's `id`, which names its files on this machine.

        Raises:
            MiiiiSearchError: The study has no id.
        """
        if self.id is None:
            raise MiiiiSearchError(
                f"study `{self.name}` was created by an older version and has no id yet, and {self.database} does "
                "not let this role write one: open it once as the database's owner, with miiii-search status"
            )
        return self.id

    def refresh(self) -> None:
        """Read again what other processes may change: specification, pause, selection and training programs.

        Raises:
            StudyDeletedError: The study was deleted.
            VersionMismatchError: A newer version has changed the specification.
        """
        found = self.store.read_attributes(SPEC_KEY, PAUSED_KEY, SELECTED_KEY, PROGRAMS_KEY, *IDENTITY_KEYS)
        if SPEC_KEY not in found or not self.store.identity.is_in(found):
            raise self.store.deleted_error()
        if found[SPEC_KEY] != self._stored_spec:
            self.spec = parse_spec(found[SPEC_KEY])
            self._stored_spec = found[SPEC_KEY]
        self.paused = PAUSED_KEY in found
        self.selection = found.get(SELECTED_KEY)
        self.programs = training_programs(found)

    def as_optuna(self, **arguments: Any) -> optuna.Study:
        """Return the study as an `optuna.Study` with a cache of its own.

        Args:
            **arguments: `sampler` and `pruner` of `optuna.load_study`.
        """
        return optuna.load_study(study_name=self.name, storage=self.database.optuna, **arguments)

    def trials(self) -> list[FrozenTrial]:
        """Read all trials, ordered by number; see `StudyStore.read_all_trials`."""
        return self.store.read_all_trials()

    def read_trials(self, trial_ids: Collection[int]) -> dict[int, FrozenTrial]:
        """Read trials by their ids; see `StudyStore.read_trials`."""
        return self.store.read_trials(trial_ids)

    def read_trial(self, number: int) -> FrozenTrial | None:
        """Read the trial with a number, and no other; None if there is none.

        Raises:
            StudyDeletedError: The study was deleted.
        """
        found = self.store.find_trial(number)
        return next(iter(self.read_trials([] if found is None else [found]).values()), None)

    def counts(self) -> dict[TrialState, int]:
        """Count the trials in each state."""
        return self.store.count_trials()

    def read_counts(self) -> StudyCounts:
        """Count the trials in each state, and read the age of the oldest lease."""
        return self.store.read_counts()

    def is_done(self, counts: Mapping[TrialState, int] | None = None) -> bool:
        """Return whether the study is done; see `state.is_done`. Refreshes the study.

        Args:
            counts: Number of trials in each state, if the caller has just counted them.

        Raises:
            StudyDeletedError: The study was deleted.
        """
        self.refresh()
        counts = self.counts() if counts is None else counts
        if is_done(self.spec, self.selection, counts, is_budget_exhausted=False):
            return True
        if counts[TrialState.RUNNING]:
            return False
        return read_exhausted_limit(self.queue, self.spec.budget) is not None

    @property
    def awaits_selection(self) -> bool:
        """Whether the best configurations still have to be selected for further seeds."""
        return self.spec.replicates.top is not None and self.selection is None

    @property
    def version_mismatch(self) -> str | None:
        """Reason why workers of this version must not train the study, with a remedy; None if they may."""
        if TRAINING_PROGRAM in self.programs:
            return None
        programs = " and ".join(map(str, self.programs))
        return (
            f"study `{self.name}` was created by miiii-search {self.version or 'of an unknown version'} and is trained "
            f"by training program {programs}; this is {version('miiii-search')} with program {TRAINING_PROGRAM}, whose "
            "results differ: install a version with the study's program, or admit this one with work --any-version "
            "or MIIII_ANY_VERSION=1 (docs/how-to/upgrade.md)"
        )

    def admit_program(self) -> None:
        """Allow workers of this version to train the study, in addition to those that already may.

        Raises:
            StudyDeletedError: The study was deleted.
        """
        with self.store.transaction() as tx:
            tx.lock()
            found = training_programs(tx.read_attributes(PROGRAMS_KEY))
            self.programs = tuple(sorted({*found, TRAINING_PROGRAM}))
            tx.write_attributes({PROGRAMS_KEY: self.programs})

    def check_version(self, any_version: bool) -> dict[str, Any]:
        """Check that this version may train the study.

        Args:
            any_version: Whether to admit this version if it may not; see `admit_program`.

        Returns:
            The attributes that each trial records about versions.

        Raises:
            VersionMismatchError: This version must not train the study, and `any_version` is false.
            StudyDeletedError: The study was deleted.
        """
        if (mismatch := self.version_mismatch) is not None:
            if not any_version:
                raise VersionMismatchError(mismatch)
            self.admit_program()
        recorded: dict[str, Any] = {"training_program": TRAINING_PROGRAM}
        if self.version not in (None, version("miiii-search")):
            recorded["study_version"] = self.version
        return recorded

    def trial_settings(self, trial: FrozenTrial) -> tuple[Experiment, Hyperparameters]:
        """Return the experiment and the hyperparameters of a trial."""
        return self.spec.run_at(trial.params, int(trial.system_attrs.get(REPLICATE_KEY, 0)))


def training_programs(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the numbers of the training programs that may train a study.

    Versions that did not store the number all had training program 1.
    """
    return tuple(attributes.get(PROGRAMS_KEY, (1,)))
