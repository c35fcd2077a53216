"""A study in an open database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.overrides import to_tree
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import (
    MiiiiSearchError,
    StudyDeletedError,
    VersionMismatchError,
)
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.study_attrs import (
    CREATED_KEY,
    ID_KEY,
    PAUSED_KEY,
    PROGRAMS_KEY,
    SELECTED_KEY,
    SPEC_KEY,
)
from miiii_search.study.hints import hint
from miiii_search.study.state import has_all_trials
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.trials import (
    REPLICATE_KEY,
)
from miiii_search.training.version import TRAINING_PROGRAM
from miiii_search.trial_queue.budget import read_exhausted_limit

IDENTITY_KEYS = (ID_KEY, CREATED_KEY)


@dataclass(frozen=True)
class StudyCounts:
    """What a study is known by without reading its trials."""

    counts: dict[TrialState, int]
    oldest_lease_seconds: float
    """Since the renewal that lies furthest back, by the database's clock; 0 where nothing is leased."""


@dataclass
class Study:
    """A study of ours in an open database: its spec, and whether it is paused, as they were at the last look."""

    database: Database
    name: str
    study_id: int
    spec: StudySpec
    version: str | None = None
    """Of the package that created it, if it told."""
    paused: bool = False
    artifact_store_url: str | None = None
    """Of its artifacts; None is the database."""
    created_at: float | None = None
    """By the database's clock."""
    selection: Mapping[str, Any] | None = None
    """Which configurations got further replicates, once some did; see `selecting`."""
    id: str | None = None
    """The study's random identity. Unlike `study_id`, no other study ever has it: SQLite gives the `study_id` of a
    deleted study to the next one. None if the study has none yet and the database does not let us write one."""
    programs: tuple[int, ...] = (TRAINING_PROGRAM,)
    """The training programs that may train it; see `admit_program`."""
    origins: tuple[tuple[str, float], ...] = ()
    """If the study was imported: the ids it had before, newest first, and when it was exported under each."""

    @property
    def identity(self) -> str:
        """The study's id, which names its files on this machine. Raises `MiiiiSearchError` if it has none."""
        if self.id is None:
            raise MiiiiSearchError(
                f"study `{self.name}` was created by an older version and has no id yet, and {self.database} does "
                "not let this role write one: open it once as the database's owner, with miiii-search status"
            )
        return self.id

    def refresh(self) -> None:
        """Looks again at what others may have changed meanwhile: `extend` the spec, `pause` and `resume` the state.

        Raises `MiiiiSearchError` if somebody deleted the study.
        """
        with self.database.engine.connect() as connection:
            keys = (SPEC_KEY, PAUSED_KEY, SELECTED_KEY, PROGRAMS_KEY, *IDENTITY_KEYS)
            found = study_attrs.read(connection, self.study_id, *keys)
        if SPEC_KEY not in found or not self._is(found):
            raise self._deleted()
        if found[SPEC_KEY] != to_tree(self.spec):
            self.spec = parse_spec(found[SPEC_KEY])
        self.paused = PAUSED_KEY in found
        self.selection = found.get(SELECTED_KEY)
        self.programs = training_programs(found)

    def lock(self, connection: sa.Connection, *, shared: bool = False) -> None:
        """`tables.lock_study`. Raises `MiiiiSearchError` if somebody deleted the study."""
        if not schema.lock_study(connection, self.study_id, shared=shared) or not self._is(
            study_attrs.read(connection, self.study_id, *IDENTITY_KEYS)
        ):
            raise self._deleted()

    def _is(self, found: Mapping[str, Any]) -> bool:
        """Whether these are attributes of this study, not of a later one that the database gave the same number."""
        return found.get(CREATED_KEY) == self.created_at and self.id in (None, found.get(ID_KEY))

    def _deleted(self) -> StudyDeletedError:
        return StudyDeletedError(
            f"study `{self.name}` was deleted; {hint('list', database=self.database)} shows those that there are"
        )

    def as_optuna(self, **arguments: Any) -> optuna.Study:
        """The study as Optuna's, with a cache of its own. `arguments`: sampler, pruner."""
        return optuna.load_study(study_name=self.name, storage=self.database.optuna, **arguments)

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number. Raises `MiiiiSearchError` if somebody deleted the study."""
        try:
            return self.database.optuna.get_all_trials(self.study_id, deepcopy=False)
        except KeyError:
            raise self._deleted() from None

    def read_trials(self, trial_ids: Collection[int]) -> dict[int, FrozenTrial]:
        """Those of the trials that are there, by their ids; in as many statements as one of them takes.

        Raises `MiiiiSearchError` if somebody deleted the study.
        """
        storage = self.database.optuna
        try:
            # Nothing beyond the ids: the last argument is for caches that have seen all up to some trial.
            found = storage._get_trials(self.study_id, None, set(trial_ids), 2**31 - 1)
        except KeyError:
            raise self._deleted() from None
        return {trial._trial_id: trial for trial in found}

    def read_trial(self, number: int) -> FrozenTrial | None:
        """Reads the trial of this number, and no other; None if there is none.

        Raises `MiiiiSearchError` if somebody deleted the study.
        """
        trials = schema.trials
        query = sa.select(trials.c.trial_id).where(trials.c.study_id == self.study_id, trials.c.number == number)
        with self.database.engine.connect() as connection:
            ids = list(connection.execute(query).scalars())
        return next(iter(self.read_trials(ids).values()), None)

    def counts(self) -> dict[TrialState, int]:
        """How many trials are in each state."""
        return self.read_counts().counts

    def read_counts(self) -> StudyCounts:
        """The study in one statement."""
        with self.database.engine.connect() as connection:
            clock, leases = schema.now(connection), schema.leases
            oldest = sa.select(clock - sa.func.min(leases.c.renewed_at)).where(leases.c.study_id == self.study_id)
            query = (
                sa.select(schema.trials.c.state, sa.func.count().label("n"), oldest.scalar_subquery().label("oldest"))
                .where(schema.trials.c.study_id == self.study_id)
                .group_by(schema.trials.c.state)
            )
            rows = connection.execute(query).all()
        found: dict[TrialState, int] = {row.state: row.n for row in rows}
        ages = [row.oldest for row in rows if row.oldest is not None]
        return StudyCounts({state: found.get(state, 0) for state in TrialState}, max([0.0, *ages]))

    def is_done(self, counts: Mapping[TrialState, int] | None = None) -> bool:
        """Whether every trial that the study is to have has ended, or its budget is spent and none is running.

        Looks at the study anew, see `refresh`; counts its trials where they were not counted just now.
        """
        self.refresh()
        counts = self.counts() if counts is None else counts
        if counts[TrialState.RUNNING]:
            return False
        if not counts[TrialState.WAITING] and has_all_trials(self.spec, self.selection, sum(counts.values())):
            return True
        return read_exhausted_limit(self.database, self.study_id, self.spec.budget) is not None

    @property
    def awaits_selection(self) -> bool:
        """Whether the best configurations are still to be given further replicates."""
        return self.spec.replicates.top is not None and self.selection is None

    @property
    def version_mismatch(self) -> str | None:
        """Why this version must not train the study, and what to do; None if it trains runs as the study's do."""
        if TRAINING_PROGRAM in self.programs:
            return None
        programs = " and ".join(map(str, self.programs))
        return (
            f"study `{self.name}` was created by miiii-search {self.version or 'of an unknown version'} and is trained "
            f"by training program {programs}; this is {version('miiii-search')} with program {TRAINING_PROGRAM}, whose "
            "results differ: install a version with the study's program, or let this one go on with work --any-version "
            "or MIIII_ANY_VERSION=1 (docs/upgrading.md)"
        )

    def admit_program(self) -> None:
        """Lets workers of this version train the study from now on, beside those that already may.

        Raises `MiiiiSearchError` if somebody deleted the study.
        """
        with self.database.transaction() as connection:
            self.lock(connection)
            found = training_programs(study_attrs.read(connection, self.study_id, PROGRAMS_KEY))
            self.programs = tuple(sorted({*found, TRAINING_PROGRAM}))
            study_attrs.write(connection, self.study_id, {PROGRAMS_KEY: self.programs})

    def check_version(self, any_version: bool) -> dict[str, Any]:
        """Returns what a trial records of the versions.

        Raises `VersionMismatchError` if this one must not train the study; with `any_version`, admits it instead.
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
        """The run that a trial stands for."""
        return self.spec.run(trial.params, int(trial.system_attrs.get(REPLICATE_KEY, 0)))


def training_programs(found: Mapping[str, Any]) -> tuple[int, ...]:
    """The training programs of a study; all versions before the number was recorded had the first."""
    return tuple(found.get(PROGRAMS_KEY, (1,)))
