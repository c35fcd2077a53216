"""Is this machine fit to work? Each finding in a line, each fault with the way out."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from miiii_search.errors import UserError
from miiii_search.terminal.display import console

PACKAGES = ("miiii-search", "jax", "jaxlib", "flax", "optax", "optuna", "optuna-dashboard", "sqlalchemy")


def examine(storage: str, study: str | None) -> bool:
    """Prints what was found; True if nothing is wrong."""
    healthy = True
    for ok, finding in [*_python(), *_packages(), *_devices(), *_storage(storage, study)]:
        console.print(f"[{'green' if ok else 'red'}]{'ok  ' if ok else 'FAIL'}[/] ", end="")
        console.print(finding, markup=False, soft_wrap=True)
        healthy = healthy and ok
    return healthy


def _python() -> Iterator[tuple[bool, str]]:
    fit = sys.version_info >= (3, 11)
    yield fit, f"Python {platform.python_version()}" + ("" if fit else "; install Python 3.11 or newer")


def _packages() -> Iterator[tuple[bool, str]]:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield True, ", ".join(found)
    if missing:
        yield False, f"not installed: {', '.join(missing)}; install them with pip install miiii-search"
    if not version("optuna").startswith("5.0."):
        yield False, f"optuna must be 5.0, but is {version('optuna')}; pip install 'optuna>=5.0,<5.1'"


def _devices() -> Iterator[tuple[bool, str]]:
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no platform could be started"])[0]
        yield False, f"JAX finds no device: {reason}; JAX_PLATFORMS=cpu trains on the CPU"
        return
    names = ", ".join(f"{device.platform} ({device.device_kind})" for device in devices)
    yield True, f"JAX computes on {names}"


def _storage(storage: str, study: str | None) -> Iterator[tuple[bool, str]]:
    from miiii_search.search.storage import open_database, parse_url
    from miiii_search.search.study import open_study, study_names

    try:
        url = parse_url(storage)
        if url.drivername == "sqlite" and study is None:
            from pathlib import Path

            if not Path(url.database or "").exists():
                yield True, f"storage {url.database}: not there yet; up and create make it"
                return
        database = open_database(storage)
        try:
            names = study_names(database)
            yield True, f"storage {database}: " + (f"studies {', '.join(names)}" if names else "no study yet")
            if study is not None:
                open_study(database, study)
                yield True, f"study `{study}`"
        finally:
            database.close()
    except UserError as error:
        yield False, str(error)
