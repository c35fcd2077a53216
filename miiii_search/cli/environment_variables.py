"""Settings in the environment: which there are, which are unknown, and whether those of Compose make sense."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from miiii_search.errors import MiiiiSearchError

PREFIX = "MIIII_"

NO_OPTIONS = (
    "MIIII_STORAGE_FILE",
    "MIIII_DASHBOARD_PASSWORD",
    "MIIII_DASHBOARD_PASSWORD_FILE",
    "MIIII_GIT_COMMIT",
    # of the compose files
    "MIIII_DASHBOARD",
    "MIIII_DATABASE",
    "MIIII_DATABASE_ADDRESS",
    "MIIII_DATABASE_PORT",
    "MIIII_CHECK_GPU",
    "MIIII_ENV_FILE",
    "MIIII_CA",
    # of workers/slurm.sh
    "MIIII_SETTINGS",
    "MIIII_COMMAND",
    "MIIII_STATE",
)
"""Settings that no option of a command stands for."""

NOT_OF_COMPOSE = ("MIIII_STORAGE", "MIIII_STORAGE_FILE", "MIIII_CA", "MIIII_SETTINGS", "MIIII_COMMAND", "MIIII_STATE")
"""Settings that have no effect in the `.env` of `docker-compose.yml`."""


def known_settings() -> set[str]:
    """All settings that some part of this project reads from the environment."""
    return {*NO_OPTIONS, *(name for command in _commands().values() for name in _names(command))}


def unknown_settings(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """One line for each MIIII_* variable that is no setting, with the nearest one that is."""
    known = known_settings()
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            yield f"{name} is not a setting and has no effect" + (f"; did you mean {close[0]}?" if close else "")


def check_settings(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """One line for each setting of `docker-compose.yml` that has no effect there.

    Raises `MiiiiSearchError` for the first setting that is wrong.
    """
    from miiii_search.cli.resolve import wanted_spec
    from miiii_search.cli.run import parse_lanes
    from miiii_search.dashboard.auth import check_exposure, read_password
    from miiii_search.storage.artifact_stores import parse_store_url
    from miiii_search.study.names import check_name

    values: dict[str, Any] = {}
    for name in ("coordinate", "work"):
        context = _commands()[name].make_context(name, [])  # raises what a wrong number is called
        values |= context.params
    if values["device"] not in ("auto", "cpu", "cuda"):
        raise MiiiiSearchError(f"MIIII_DEVICE must be cpu or cuda, but is `{values['device']}`")
    if values["study"] is not None:
        check_name(values["study"])
    try:
        wanted_spec(values["preset"], None, values["settings"], values["trials"])
    except MiiiiSearchError as error:
        raise MiiiiSearchError(str(error).replace("--set", "MIIII_SET", 1)) from None
    if values["artifacts"]:
        parse_store_url(values["artifacts"])
    parse_lanes(values["lanes"])
    if published := environment.get("MIIII_DASHBOARD"):
        check_exposure("0.0.0.0", read_password(environment), published)
    for name in NOT_OF_COMPOSE:
        if environment.get(name):
            yield f"{name} has no effect in the .env of docker-compose.yml"


def _commands() -> Mapping[str, Any]:
    import typer

    from miiii_search.cli.commands import app

    group: Any = typer.main.get_command(app)
    commands: Mapping[str, Any] = group.commands
    return commands


def _names(command: Any) -> Iterator[str]:
    for parameter in command.params:
        envvar = parameter.envvar
        if envvar:
            yield from [envvar] if isinstance(envvar, str) else envvar
