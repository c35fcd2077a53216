"""Studies: create, open, enqueue. The spec lives in the study, so a worker needs a URL and a name."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.overrides import difference, to_tree, validate
from miiii_search.config.study_spec import Point, Range, StudySpec, Value, nearest
from miiii_search.errors import (
    DuplicateStudyError,
    MiiiiSearchError,
    StudyDeletedError,
    StudyNotFoundError,
    VersionMismatchError,
)
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage import deleted_studies, notes, schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.retry import is_read_only
from miiii_search.storage.revisions import renew_revision
from miiii_search.storage.study_attrs import (
    ARTIFACT_STORE_KEY,
    CREATED_KEY,
    ID_KEY,
    ORIGINS_KEY,
    PAUSED_KEY,
    PROGRAMS_KEY,
    SELECTED_KEY,
    SPEC_KEY,
    VERSION_KEY,
)
from miiii_search.study.hints import hint
from miiii_search.training.version import TRAINING_PROGRAM
from miiii_search.trial_queue.budget import read_exhausted_limit
from miiii_search.trial_queue.leases import SHAPE_KEY

REPLICATE_KEY = "miiii:replicate"
METRICS_KEY = "metrics"
"""The trial attribute that holds `Metrics`."""
IDENTITY_KEYS = (ID_KEY, CREATED_KEY)
METRIC = "accuracy + epochs saved"
"""The name of the objective in the dashboard; see `objective`."""


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
        self.programs = _programs(found)

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

    def load(self, **arguments: Any) -> optuna.Study:
        """The study as Optuna's, with a cache of its own. `arguments`: sampler, pruner."""
        return optuna.load_study(study_name=self.name, storage=self.database.optuna, **arguments)

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number. Raises `MiiiiSearchError` if somebody deleted the study."""
        try:
            return self.database.optuna.get_all_trials(self.study_id, deepcopy=False)
        except KeyError:
            raise self._deleted() from None

    def read(self, trial_ids: Collection[int]) -> dict[int, FrozenTrial]:
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

    def read_number(self, number: int) -> FrozenTrial | None:
        """Reads the trial of this number, and no other; None if there is none.

        Raises `MiiiiSearchError` if somebody deleted the study.
        """
        trials = schema.trials
        query = sa.select(trials.c.trial_id).where(trials.c.study_id == self.study_id, trials.c.number == number)
        with self.database.engine.connect() as connection:
            ids = list(connection.execute(query).scalars())
        return next(iter(self.read(ids).values()), None)

    def counts(self) -> dict[TrialState, int]:
        """How many trials are in each state."""
        return self.glance().counts

    def glance(self) -> StudyCounts:
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
    def mismatch(self) -> str | None:
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
            found = _programs(study_attrs.read(connection, self.study_id, PROGRAMS_KEY))
            self.programs = tuple(sorted({*found, TRAINING_PROGRAM}))
            study_attrs.write(connection, self.study_id, {PROGRAMS_KEY: self.programs})

    def check_version(self, any_version: bool) -> dict[str, Any]:
        """Returns what a trial records of the versions.

        Raises `VersionMismatchError` if this one must not train the study; with `any_version`, admits it instead.
        """
        if (mismatch := self.mismatch) is not None:
            if not any_version:
                raise VersionMismatchError(mismatch)
            self.admit_program()
        recorded: dict[str, Any] = {"training_program": TRAINING_PROGRAM}
        if self.version not in (None, version("miiii-search")):
            recorded["study_version"] = self.version
        return recorded

    def run_of(self, trial: FrozenTrial) -> tuple[Experiment, Hyperparameters]:
        """The run that a trial stands for."""
        return self.spec.run(trial.params, int(trial.system_attrs.get(REPLICATE_KEY, 0)))


def has_all_trials(spec: StudySpec, selection: Mapping[str, Any] | None, n_trials: int) -> bool:
    """Whether a study with so many trials will get no more."""
    if spec.replicates.top is None:
        return n_trials >= spec.n_trials
    # Who counted before the selection, and reads of it after, counted too few.
    return selection is not None and n_trials >= selection["n_trials"]


def expected_trials(spec: StudySpec, selection: Mapping[str, Any] | None, n_trials: int) -> int:
    """How many trials a study that has so many will have in the end, or at most where the best are yet to be known."""
    if spec.replicates.top is None:
        return spec.n_trials
    return max(spec.n_trials if selection is None else selection["n_trials"], n_trials)


def objective(experiment: Experiment, accuracy: float, epochs_to_solve: int | None) -> float:
    """What the study maximises: one number, so that the dashboard, a sampler and `best` agree.

    The mean validation accuracy over the scored tasks while a trial is not solved; 1 and the share of epochs
    that it saved once it is.
    """
    if epochs_to_solve is None:
        return accuracy
    return 1 + (1 - epochs_to_solve / experiment.epochs)


def shape_of(d_model: int, n_heads: int) -> str:
    """What a trial's program is compiled for, as far as hyperparameters change it; see `leases.claim`."""
    return f"d_model={d_model} n_heads={n_heads}"


def describe_point(params: Mapping[str, Any]) -> str:
    """A point of the space in a line."""
    return ", ".join(f"{name} {x:.4g}" if isinstance(x, float) else f"{name} {x}" for name, x in params.items())


def distributions(spec: StudySpec) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms: a list is categorical, a range is continuous or, for integers, discrete."""
    return {name: _distribution(spec, name) for name in spec.space}


def create_study(
    database: Database, name: str, spec: StudySpec, artifact_store_url: str | None = None, *, again: bool = True
) -> Study:
    """Creates the study and its queue in one transaction; with the same spec, the second time does nothing.

    `artifact_store_url` says where a new study keeps its artifacts; see `artifact_stores.parse_store_url`. An
    existing study keeps its own.
    With `again` a study that was deleted is created again.

    Raises `MiiiiSearchError` if a study of this name has another spec (naming every difference), or is not ours, and
    `StudyDeletedError` if it was deleted and `again` is false.
    """
    check_name(name)
    if not again:
        check_not_deleted(database, name)
    while (created := _create_study(database, name, spec, artifact_store_url, again)) is None:
        pass  # somebody deleted it between two of our transactions
    study_id, stored = created
    if stored != spec and (differences := difference(stored, spec)):
        raise DuplicateStudyError(
            f"study `{name}` exists with another spec: {'; '.join(differences)}; "
            "choose another --study, or leave the options out to go on with what it has"
        )
    return _open(database, name, study_id)


def _create_study(
    database: Database, name: str, spec: StudySpec, artifact_store_url: str | None, again: bool
) -> tuple[int, StudySpec] | None:
    """The study's id and its spec; None if somebody deleted it meanwhile."""
    storage = database.optuna
    try:
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], name)
    except optuna.exceptions.DuplicatedStudyError:
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError:
            return None
    try:
        maximised = storage.get_study_directions(study_id) == [optuna.study.StudyDirection.MAXIMIZE]
    except KeyError:
        return None
    with database.transaction() as connection:
        # The study's row is the lock: of two coordinators at once, the second finds the first one's work.
        if not schema.lock_study(connection, study_id):
            return None
        found = study_attrs.read(connection, study_id, SPEC_KEY)
        deletion = None if again or found else deleted_studies.deletion_error(connection, name)
        if found:
            stored = parse_spec(found[SPEC_KEY])
        elif deletion is not None:  # it was deleted since we looked: take back the row that we made
            for table in (*schema.STUDY_TABLES, schema.studies):
                connection.execute(sa.delete(table).where(table.c.study_id == study_id))
            stored = spec
        else:
            if (
                not maximised
                or connection.execute(
                    sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id).limit(1)
                ).first()
            ):
                raise MiiiiSearchError(f"study `{name}` was not created by miiii-search; choose another name")
            _describe_study(connection, study_id, spec, artifact_store_url)
            queue = spec.queue() if spec.is_queue else [(point, 0) for point in spec.first]
            if queue:
                insert_trials(connection, study_id, spec, queue, TrialState.WAITING)
            deleted_studies.clear_deletion(connection, name)
            stored = spec
    if deletion is not None:
        raise deletion
    return study_id, stored


def check_not_deleted(database: Database, name: str) -> None:
    """Raises `StudyDeletedError` if a study of this name was deleted and not created again."""
    with database.engine.connect() as connection:
        is_there = sa.select(schema.studies.c.study_id).where(schema.studies.c.study_name == name)
        if connection.execute(is_there).first() is None and (error := deleted_studies.deletion_error(connection, name)):
            raise error


def check_name(name: str) -> None:
    """Raises `MiiiiSearchError` for what is no name of a study of ours: a terminal shows it, and a line holds it."""
    if not name or len(name) > 200 or not name.isprintable():
        raise MiiiiSearchError(
            f"a study's name must have 1 to 200 characters and no control characters, but is {name[:250]!r}; "
            "choose another one with --study"
        )


def open_study(database: Database, name: str | None) -> Study:
    """Opens a study; without a name, the only one there is.

    Raises `StudyNotFoundError` naming those that exist if there is none, and `MiiiiSearchError` if there are several.
    """
    names = study_names(database)
    if name is None:
        if len(names) != 1:
            error = MiiiiSearchError if names else StudyNotFoundError
            raise error(f"which study? name it with --study: {_listed(names)}")
        name = names[0]
    if name not in names:
        check_not_deleted(database, name)
        create = hint("create", f"--study={name}", database=database)
        close = nearest(name, names) if names else f"; there is none yet, create it with {create}"
        raise StudyNotFoundError(f"there is no study `{name}` in {database}{close}")
    try:
        study_id = database.optuna.get_study_id_from_name(name)
    except KeyError:
        raise StudyNotFoundError(f"there is no study `{name}` in {database}") from None
    return _open(database, name, study_id)


def study_names(database: Database) -> list[str]:
    """All studies in the database, by name."""
    with database.engine.connect() as connection:
        return list(connection.execute(sa.select(schema.studies.c.study_name).order_by("study_name")).scalars())


def count_trials(connection: sa.Connection, study_id: int) -> int:
    """How many trials a study has, in any state."""
    query = sa.select(sa.func.count()).select_from(schema.trials).where(schema.trials.c.study_id == study_id)
    return int(connection.execute(query).scalar_one())


def insert_trials(
    connection: sa.Connection,
    study_id: int,
    spec: StudySpec,
    points: list[tuple[Point, int]],
    state: TrialState,
) -> list[tuple[int, int]]:
    """Adds trials at (point, replicate); returns (trial id, number) of each.

    To be called with the study's row locked, since numbers continue from those that are there.
    """
    first = count_trials(connection, study_id)
    space = distributions(spec)
    rows = [
        {
            "study_id": study_id,
            "number": first + k,
            "state": state,
            "datetime_start": None,
            "datetime_complete": None,
        }
        for k in range(len(points))
    ]
    connection.execute(sa.insert(schema.trials), rows)
    ids: dict[int, int] = {
        number: trial_id
        for trial_id, number in connection.execute(
            sa.select(schema.trials.c.trial_id, schema.trials.c.number).where(
                schema.trials.c.study_id == study_id, schema.trials.c.number >= first
            )
        )
    }
    parameters, trial_attributes = [], []
    for k, (point, replicate) in enumerate(points):
        trial_id = ids[first + k]
        for name, value in point.items():
            parameters.append(
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": space[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(space[name]),
                }
            )
        hyperparameters = spec.run(point, replicate)[1]
        shape = shape_of(hyperparameters.d_model, hyperparameters.n_heads)
        for key, attribute in [(SHAPE_KEY, shape), (REPLICATE_KEY, replicate)]:
            trial_attributes.append({"trial_id": trial_id, "key": key, "value_json": json.dumps(attribute)})
    if parameters:  # a space of seeds alone has none
        connection.execute(sa.insert(schema.trial_params), parameters)
    connection.execute(sa.insert(schema.trial_system_attributes), trial_attributes)
    return [(ids[first + k], first + k) for k in range(len(points))]


def _distribution(spec: StudySpec, name: str) -> BaseDistribution:
    dimension = spec.space[name]
    if isinstance(dimension, Range):
        low, high = dimension.low, dimension.high
        field = Hyperparameters.model_fields.get(name)
        if field is not None and field.annotation is int:
            return IntDistribution(int(low), int(high), log=dimension.log)
        return FloatDistribution(float(low), float(high), log=dimension.log)
    values: list[Value] = list(dimension)
    # Points of `first` may lie outside of the lists, as Table 2 does; Optuna wants one distribution for all.
    values += [point[name] for point in spec.first if point[name] not in values]
    return CategoricalDistribution(values)


def _open(database: Database, name: str, study_id: int) -> Study:
    keys = (
        *(SPEC_KEY, VERSION_KEY, PROGRAMS_KEY, PAUSED_KEY, ARTIFACT_STORE_KEY, SELECTED_KEY, ORIGINS_KEY),
        *IDENTITY_KEYS,
    )
    with database.engine.connect() as connection:
        found = study_attrs.read(connection, study_id, *keys)
    if SPEC_KEY not in found:  # or it is being created: Optuna writes its row in a transaction of its own
        raise StudyNotFoundError(f"study `{name}` was not created by miiii-search; choose another --study")
    return Study(
        database,
        name,
        study_id,
        _stored_spec(name, found),
        found.get(VERSION_KEY),
        PAUSED_KEY in found,
        found.get(ARTIFACT_STORE_KEY),
        found.get(CREATED_KEY),
        found.get(SELECTED_KEY),
        programs=_programs(found),
        id=found.get(ID_KEY) or _give_id(database, study_id),
        origins=tuple((str(origin), float(at)) for origin, at in found.get(ORIGINS_KEY, [])),
    )


def _stored_spec(name: str, found: Mapping[str, Any]) -> StudySpec:
    try:
        return parse_spec(found[SPEC_KEY])
    except MiiiiSearchError as error:
        creator = found.get(VERSION_KEY, "of an unknown version")
        raise VersionMismatchError(
            f"study `{name}` was created by miiii-search {creator}, and this is {version('miiii-search')}, which "
            f"cannot read it: {error}"
        ) from None


def _programs(found: Mapping[str, Any]) -> tuple[int, ...]:
    """The training programs of a study; all versions before the number was recorded had the first."""
    return tuple(found.get(PROGRAMS_KEY, (1,)))


def new_id() -> str:
    """A random id for a study."""
    return uuid.uuid4().hex


def _give_id(database: Database, study_id: int) -> str | None:
    """Gives a study of an older version its id, once: of several processes at a time, all get the same.

    Returns None if the study is gone, or if the role may not write: reading goes on without an id.
    """
    try:
        with database.transaction() as connection:
            if not schema.lock_study(connection, study_id):
                return None
            found: str | None = study_attrs.read(connection, study_id, ID_KEY).get(ID_KEY)
            if found is None:
                found = new_id()
                study_attrs.write(connection, study_id, {ID_KEY: found})
            return found
    except sa.exc.DBAPIError as error:
        if not is_read_only(error):
            raise
        return None


def parse_spec(tree: Mapping[str, Any]) -> StudySpec:
    """A spec as a study holds it. Raises `MiiiiSearchError` if it is of a format that this version does not read."""
    if tree.get("format") != 1:
        raise MiiiiSearchError(
            f"the study's spec has format {tree.get('format')}, this version of miiii-search reads format 1; "
            "use the version that created it"
        )
    return validate(StudySpec, tree, "the study's spec")


def _describe_study(connection: sa.Connection, study_id: int, spec: StudySpec, artifact_store_url: str | None) -> None:
    values = {
        ID_KEY: new_id(),
        VERSION_KEY: version("miiii-search"),
        PROGRAMS_KEY: [TRAINING_PROGRAM],
        CREATED_KEY: study_attrs.now(connection),
        "study:metric_names": [METRIC],
        **({ARTIFACT_STORE_KEY: artifact_store_url} if artifact_store_url else {}),
    }
    study_attrs.write(connection, study_id, values)
    renew_revision(connection, study_id)
    write_spec(connection, study_id, spec)


def write_spec(connection: sa.Connection, study_id: int, spec: StudySpec) -> None:
    """Stores the study's spec, and what a visitor of the dashboard reads of it, over what is there."""
    study_attrs.write(connection, study_id, {SPEC_KEY: to_tree(spec)})
    notes.rewrite(connection, study_id, notes.describe(spec))


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "there is none yet"
