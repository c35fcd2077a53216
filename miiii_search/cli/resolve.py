"""From the options of a command to what they name: the storage, the study, the keys of an installation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from miiii_search.cli.output import print_line, warn
from miiii_search.errors import MiiiiSearchError, VersionMismatchError

if TYPE_CHECKING:
    from miiii_search.deployment.keys import Keys
    from miiii_search.storage.database import Database
    from miiii_search.study.study import Study

RETRY_SECONDS = 5.0
"""Seconds between two attempts to open a study that another version of this program has to train."""

open_databases = ExitStack()
"""Databases that are closed when the command ends."""

opened_storages: list[str] = []
"""Storages that the command has opened, without passwords. Error messages name the last one."""


def open_storage(storage: str, create: bool = False, quiet: bool = False) -> Database:
    """Open a storage until the command ends.

    Args:
        storage: The URL.
        create: Whether to create the tables, and the file of SQLite, if they do not exist.
        quiet: Whether to omit the warning about a SQLite file on a network file system. One of several processes
            prints it.

    Raises:
        MiiiiSearchError: The storage does not exist, or cannot be opened.
    """
    from miiii_search.storage.database import open_database
    from miiii_search.storage.sqlite import NETWORK_ADVICE, network_file_system

    database = open_database(storage, create=create)
    open_databases.callback(database.close)
    opened_storages.append(str(database))
    if (
        not quiet
        and database.url.drivername == "sqlite"
        and (kind := network_file_system(Path(str(database.url.database))))
    ):
        warn(f"{database} lies on a network file system ({kind}); {NETWORK_ADVICE}")
    return database


def open_study(name: str | None, storage: str, quiet: bool = False) -> Study:
    """Open a study by name, or the only study of the storage if `name` is None.

    Raises:
        MiiiiSearchError: There is no such study, or the storage cannot be opened.
    """
    from miiii_search.study import open as opening

    return opening.open_study(open_storage(storage, quiet=quiet), name)


def wait_until_compatible(
    open_: Callable[[], Study | None],
    check: Callable[[Study], object],
    stop: threading.Event,
    touch_liveness: Callable[[], object],
) -> Study | None:
    """Open a study; while another version of this program is needed for it, wait and try again.

    A process that exited instead would be restarted again and again by its container.

    Args:
        open_: Opens the study.
        check: Called with the study; raises `VersionMismatchError` if this version must not use it.
        stop: Ends the waiting.
        touch_liveness: Called every second while waiting.

    Returns:
        The study; None if `stop` was set or if `open_` returned None.

    Raises:
        MiiiiSearchError: Any error but `VersionMismatchError`.
    """
    reported = ""
    while not stop.is_set():
        try:
            study = open_()
            if study is not None:
                check(study)
            return study
        except VersionMismatchError as error:
            open_databases.close()
            if str(error) != reported:
                reported = str(error)
                print_line(f"waiting: {reported}")
        until = time.monotonic() + RETRY_SECONDS
        while not stop.wait(1.0) and time.monotonic() < until:
            touch_liveness()
    return None


def installation_keys(keys: Path | None, access: Path | None) -> Keys:
    """Return the keys of the installation of containers in which this command runs.

    Raises:
        MiiiiSearchError: One of the folders is not given, as outside of an installation of containers.
    """
    from miiii_search.deployment.keys import Keys

    if keys is None or access is None:
        missing = "--keys" if keys is None else "--access"
        raise MiiiiSearchError(
            f"this command is for an installation of containers, but {missing} was not given; "
            "type docker compose exec coordinator miiii-search ..."
        )
    return Keys(keys, access)


def check_only_folder(folder: Path, trial: int | None) -> None:
    """Check that no trial is given in addition to the folder of a run.

    Raises:
        MiiiiSearchError: Both are given.
    """
    if trial is not None:
        raise MiiiiSearchError(
            f"give a run's folder or --trial, one of the two, but both were given: {folder} and --trial {trial}; "
            "leave one of them out"
        )
