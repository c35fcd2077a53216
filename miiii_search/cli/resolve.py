"""From a command's options to what they name: storage, study, spec, keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from miiii_search.cli.output import say, warn
from miiii_search.errors import MiiiiSearchError, VersionMismatchError

if TYPE_CHECKING:
    from miiii_search.config.study_spec import StudySpec
    from miiii_search.deployment.keys import Keys
    from miiii_search.storage.database import Database
    from miiii_search.study.study import Study

WAIT_SECONDS = 5.0
"""Between two looks at a study that another version has to train."""

to_close = ExitStack()
"""What is closed at a command's end."""


opened: list[str] = []
"""The storages that the command has opened, as they may be shown."""


def open_storage(storage: str, create: bool = False, quiet: bool = False) -> Database:
    """A storage that is closed at the command's end. Raises `MiiiiSearchError` where there is none, unless `create`.

    Warns of a SQLite file on a network file system, unless `quiet`: of several processes, one warns.
    """
    from miiii_search.storage.database import open_database
    from miiii_search.storage.sqlite import NETWORK_ADVICE, network_file_system

    database = open_database(storage, create=create)
    to_close.callback(database.close)
    opened.append(str(database))
    if (
        not quiet
        and database.url.drivername == "sqlite"
        and (kind := network_file_system(Path(str(database.url.database))))
    ):
        warn(f"{database} lies on a network file system ({kind}); {NETWORK_ADVICE}")
    return database


def open_study(study: str | None, storage: str, quiet: bool = False) -> Study:
    """The study of this name, or the only one that there is. Raises `MiiiiSearchError`."""
    from miiii_search.study import open as opening

    return opening.open_study(open_storage(storage, quiet=quiet), study)


def when_compatible(
    open_: Callable[[], Study | None],
    check: Callable[[Study], object],
    stop: threading.Event,
    beat: Callable[[], object],
) -> Study | None:
    """Opens a study for a process that stays; waits while this version cannot read it, or `check` refuses it.

    Returns None once `stop` is set, or if `open_` does. A process that ended instead would be started again, for ever.
    Raises `MiiiiSearchError` for everything but `VersionMismatchError`.
    """
    said = ""
    while not stop.is_set():
        try:
            opened = open_()
            if opened is not None:
                check(opened)
            return opened
        except VersionMismatchError as error:
            to_close.close()
            if str(error) != said:
                said = str(error)
                say(f"waiting: {said}")
        until = time.monotonic() + WAIT_SECONDS
        while not stop.wait(1.0) and time.monotonic() < until:
            beat()
    return None


def open_or_create(
    study: str | None,
    storage: str,
    preset: str | None,
    spec: Path | None,
    settings: list[str] | None,
    trials: int | None,
    artifacts: str | None,
    keep: bool = False,
    again: bool = True,
    check_name: Callable[[str], object] = lambda name: None,
) -> Study:
    """The study of this name as it is, or a new one; with options, it must have just these unless `keep`.

    `check_name` is called with the study's name before anything is created, and may raise `MiiiiSearchError`.

    Raises `StudyDeletedError` for a study that was deleted, unless it may be created `again`.
    """
    from miiii_search.config.overrides import describe_differences
    from miiii_search.storage.artifact_stores import parse_store_url, prepare_store
    from miiii_search.study import create, names
    from miiii_search.study import open as opening

    if preset and spec:
        raise MiiiiSearchError("--preset and --spec are two ways to say the same: choose one")
    wanted = wanted_spec(preset, spec, settings, trials)
    # A file may say which preset it was made from; its grid can be another one by now.
    name = study or (spec.stem if spec else wanted.preset) or "study"
    check_name(name)
    as_it_is = keep or not (preset or spec or settings or trials)
    database = open_storage(storage, create=True)
    known = name in names.study_names(database)
    store_url = parse_store_url(artifacts) if artifacts else None
    if not again:
        names.check_not_deleted(database, name)
    if store_url and not known:
        prepare_store(store_url)
    if as_it_is and known:
        opened = opening.open_study(database, name)
    else:
        opened = create.create_study(database, name, wanted, store_url, again=again)
    if store_url and opened.artifact_store_url != store_url and not keep:
        kept = opened.artifact_store_url or "its database"
        raise MiiiiSearchError(
            f"study `{name}` keeps its artifacts in {kept}, not in {store_url}; leave --artifacts out"
        )
    n_trials, up_to = opened.spec.n_trials, "up to " * (opened.spec.replicates.top is not None)
    counts = f"{up_to}{n_trials} trial{'s' * (n_trials != 1)} of up to {opened.spec.experiment.epochs:,} epochs"
    say(f"study `{name}` {'exists' if known else 'created'} in {database}: {counts}")
    if keep and (differences := describe_differences(opened.spec, wanted)):
        say(f"it goes on as it is, though the settings are others: {'; '.join(differences)}")
    return opened


def wanted_spec(preset: str | None, spec: Path | None, settings: list[str] | None, trials: int | None) -> StudySpec:
    """A file's spec, or a preset's, or `demo`, with the settings.

    Raises `MiiiiSearchError` where that makes no study.
    """
    from miiii_search.config.overrides import apply_settings, read_config_file, to_tree, validate
    from miiii_search.config.presets import get_preset
    from miiii_search.config.study_spec import StudySpec
    from miiii_search.pruners.factory import check_pruning

    tree = read_config_file(spec) if spec else to_tree(get_preset(preset or "demo").spec)
    if spec:
        validate(StudySpec, tree, str(spec))
    wanted = apply_settings(StudySpec, tree, [*(settings or []), *([f"budget.trials={trials}"] if trials else [])])
    check_pruning(wanted)
    return wanted


def installation_keys(keys: Path | None, access: Path | None) -> Keys:
    """Raises `MiiiiSearchError` outside of an installation of containers."""
    from miiii_search.deployment.keys import Keys

    if keys is None or access is None:
        raise MiiiiSearchError(
            "this is for an installation of containers: docker compose exec coordinator miiii-search ..."
        )
    return Keys(keys, access)
