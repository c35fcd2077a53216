"""The command `doctor`: checks of the installation and of the storage, one line each, with advice for each failure."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.text import Text

from miiii_search.capabilities import is_coordinator_install
from miiii_search.cli.views.console import console
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.error_advice import explain
from miiii_search.storage.sqlite import NETWORK_ADVICE, network_file_system
from miiii_search.storage.urls import parse_url, redact_url
from miiii_search.storage.write_check import try_writing
from miiii_search.study.names import study_names
from miiii_search.study.open import open_study

EVERYWHERE = ("miiii-search", "optuna", "optuna-dashboard", "sqlalchemy")
TO_TRAIN = ("jax", "jaxlib", "flax", "optax", "matplotlib", "scipy", "safetensors")

Finding = tuple[bool, str]
"""Whether a check passed, and the line that is shown."""


def check_installation(storage: str, study: str | None) -> bool:
    """Run all checks and print their findings.

    Args:
        storage: URL of the storage.
        study: Name of a study to open; None: no study is opened.

    Returns:
        Whether all checks passed.
    """
    healthy = True
    for ok, finding in [*_check_python(), *_check_packages(), *_check_devices(), *_check_storage(storage, study)]:
        console.print(Text("ok  " if ok else "FAIL", "green" if ok else "red"), finding, soft_wrap=True)
        healthy = healthy and ok
    return healthy


def _check_python() -> Iterator[Finding]:
    is_supported = sys.version_info >= (3, 11)
    yield (
        is_supported,
        f"Python {platform.python_version()}" + ("" if is_supported else "; install Python 3.11 or newer"),
    )


def _check_packages() -> Iterator[Finding]:
    names = EVERYWHERE if is_coordinator_install() else (*EVERYWHERE, *TO_TRAIN)
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield True, ", ".join(found)
    if missing:
        yield False, f"not installed: {', '.join(missing)}; install them with pip install miiii-search"
    if "optuna" not in missing and not version("optuna").startswith("5.0."):
        yield False, f"optuna must be 5.0, but is {version('optuna')}; pip install 'optuna>=5.0,<5.1'"


def _check_devices() -> Iterator[Finding]:
    if is_coordinator_install():
        yield (
            True,
            "an installation without JAX, as in the image of the coordinator: it creates, supervises and shows "
            "studies; up, work, train, analyze, compare, simulate and export-weights need the image of the worker",
        )
        return
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no platform could be started"])[0]
        yield False, f"JAX finds no device: {reason}; JAX_PLATFORMS=cpu trains on the CPU"
        return
    names = ", ".join(f"{device.platform} ({device.device_kind})" for device in devices)
    yield True, f"JAX computes on {names}"


def _check_storage(storage: str, study: str | None) -> Iterator[Finding]:
    try:
        url = parse_url(storage)
    except MiiiiSearchError as error:
        yield False, str(error)
        return
    try:
        if url.drivername == "sqlite" and study is None and not Path(url.database or "").exists():
            yield True, f"storage {url.database} does not exist yet; miiii-search up and miiii-search create create it"
            return
        database = open_database(storage)
        try:
            names = study_names(database)
            yield True, f"storage {database}: " + (f"studies {', '.join(names)}" if names else "no study yet")
            if url.drivername == "sqlite" and (kind := network_file_system(Path(url.database or ""))):
                yield False, f"it lies on a network file system ({kind}); {NETWORK_ADVICE}"
            yield check_writing(database)
            if study is not None:
                open_study(database, study)
                yield True, f"study `{study}`"
        finally:
            database.close()
    except MiiiiSearchError as error:
        yield False, str(error)
    except Exception as error:
        if not (line := explain(error, redact_url(url))):
            raise
        yield False, line


def check_writing(database: Database) -> Finding:
    """Check whether the database accepts what a worker writes, and whether this role may create studies.

    Nothing is kept.
    """
    if database.read_only:
        return False, "it is read-only here: only status, list, best, watch, export-study and dashboard work"
    try:
        may_create = try_writing(database)
    except Exception as error:
        line = explain(error, str(database))
        if line is None:
            raise
        return False, f"it does not accept writes: {line}"
    if not may_create:
        return (
            True,
            "it accepts the writes of a worker; create, delete, cleanup and import-study need the database's owner",
        )
    return True, "it accepts writes"
