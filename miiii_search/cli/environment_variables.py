"""The settings that are environment variables: which ones exist, and whether those of docker-compose.yml are valid."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from miiii_search.errors import MiiiiSearchError

PREFIX = "MIIII_"

WITHOUT_OPTION = {
    "MIIII_STORAGE_FILE": "File with the storage's URL, for a URL with a password.",
    "MIIII_DASHBOARD_PASSWORD": "Password of the dashboard.",
    "MIIII_DASHBOARD_PASSWORD_FILE": "File with the password of the dashboard. Set only one of the two.",
    "MIIII_GIT_COMMIT": "Commit that the images were built from, for the provenance of results.",
    "MIIII_FAILPOINTS": "Folder of the failpoints of tests; see CONTRIBUTING.md.",
    # read by the Compose files
    "MIIII_DASHBOARD": "Compose: where to publish the dashboard, as ADDRESS:PORT.",
    "MIIII_DATABASE": "Compose: `published` lets workers on other machines reach the database.",
    "MIIII_DATABASE_ADDRESS": "Compose: address at which the database is published.",
    "MIIII_DATABASE_PORT": "Compose: port at which the database is published.",
    "MIIII_CHECK_GPU": "Compose: `no` builds the CUDA image without checking that this machine has a GPU.",
    "MIIII_ENV_FILE": "Compose: name of the file with the settings, if it is not `.env`.",
    "MIIII_CA": "Compose on a second machine: file with the certificate of the database.",
    # read by workers/slurm.sh
    "MIIII_SETTINGS": "Slurm: file with the worker's settings, as lines NAME=VALUE.",
    "MIIII_COMMAND": "Slurm: command that starts the program.",
    "MIIII_STATE": "Slurm: folder for checkpoints and compiled programs.",
}
"""Settings that are not the environment variable of an option, with their meaning."""

WITHOUT_EFFECT_IN_COMPOSE = (
    "MIIII_STORAGE",
    "MIIII_STORAGE_FILE",
    "MIIII_CA",
    "MIIII_SETTINGS",
    "MIIII_COMMAND",
    "MIIII_STATE",
)
"""Settings that have no effect in the `.env` of `docker-compose.yml`."""


def known_settings() -> set[str]:
    """Return the names of all settings that a part of this project reads from the environment."""
    return {*WITHOUT_OPTION, *(name for command in _commands().values() for name in _option_variables(command))}


def unknown_settings(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield one line for each variable that looks like a setting but is none, with the most similar setting."""
    known = known_settings()
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            yield f"{name} is not a setting and has no effect" + (f"; did you mean {close[0]}?" if close else "")


def check_compose_settings(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Check the settings of `docker-compose.yml`.

    Yields:
        One line for each setting that has no effect there.

    Raises:
        MiiiiSearchError: A setting is invalid. The first such setting is reported.
    """
    from miiii_search.cli.run import parse_lanes
    from miiii_search.cli.study_request import read_spec
    from miiii_search.dashboard.auth import check_exposure, read_password
    from miiii_search.storage.artifact_stores import parse_store_url
    from miiii_search.study.names import check_name

    values: dict[str, Any] = {}
    for name in ("coordinate", "work"):
        context = _commands()[name].make_context(name, [])  # raises an error for a number that is out of range
        values |= context.params
    if values["device"] not in ("auto", "cpu", "cuda"):
        raise MiiiiSearchError(f"MIIII_DEVICE must be auto, cpu or cuda, but is `{values['device']}`")
    if values["study_name"] is not None:
        check_name(values["study_name"])
    try:
        read_spec(values["preset"], None, values["settings"], values["trials"])
    except MiiiiSearchError as error:
        raise MiiiiSearchError(str(error).replace("--set", "MIIII_SET", 1)) from None
    if values["artifacts"]:
        parse_store_url(values["artifacts"])
    try:
        parse_lanes(values["lanes"])
    except MiiiiSearchError:
        raise MiiiiSearchError(
            f"MIIII_LANES must be a number of at least 1, or auto, but is `{values['lanes']}`"
        ) from None
    if published := environment.get("MIIII_DASHBOARD"):
        check_exposure("0.0.0.0", read_password(environment), published)
    for name in WITHOUT_EFFECT_IN_COMPOSE:
        if environment.get(name):
            yield f"{name} has no effect in the .env of docker-compose.yml"


def _commands() -> Mapping[str, Any]:
    """Return all commands by name."""
    import typer

    from miiii_search.cli.commands import app

    group: Any = typer.main.get_command(app)
    commands: Mapping[str, Any] = group.commands
    return commands


def _option_variables(command: Any) -> Iterator[str]:
    """Yield the environment variables of the options of a command."""
    for parameter in command.params:
        variables = parameter.envvar
        if variables:
            yield from [variables] if isinstance(variables, str) else variables
