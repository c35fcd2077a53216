"""Commands for installations of containers, and for machines that train for them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from miiii_search.cli import exit_codes, streams
from miiii_search.cli.options import (
    DEFAULT_STORAGE,
    AccessOption,
    CheckedStudyOption,
    KeysOption,
    StorageOption,
    StudyOption,
)
from miiii_search.cli.output import print_line, write_result
from miiii_search.cli.resolve import installation_keys, open_storage
from miiii_search.errors import MiiiiSearchError


def invite(
    host: Annotated[
        str | None, typer.Option(help="Name or address by which the other machine reaches this one.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the other machine. Its database role is named for it.")] = "",
    port: Annotated[int, typer.Option(help="Port at which this machine publishes the database.")] = 5432,
    revoke: Annotated[bool, typer.Option("--revoke", help="Remove the role instead, and end its connections.")] = False,
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    keys: KeysOption = None,
    access: AccessOption = None,
) -> None:
    """Invite another machine to train.

    Creates a password and a certificate for it, and prints what to type there. This works only in an installation of
    containers, with docker compose exec coordinator before the command.

    Examples:
        miiii-search invite --host gpu1.lab --name gpu2
        miiii-search invite --name gpu2 --revoke
    """
    from miiii_search.deployment import invite as invitation
    from miiii_search.storage.roles import drop_worker, role_name

    if not name:
        raise MiiiiSearchError("invite needs the name of the other machine; add --name NAME, such as --name gpu2")
    if revoke:
        drop_worker(open_storage(storage), role_name(name))
        print_line(f"the role {role_name(name)} is gone; its trials return to the queue when their leases expire")
        return
    if not host:
        raise MiiiiSearchError(
            "invite needs the name or address by which the other machine reaches this one; "
            "add --host HOST, such as --host gpu1.lab"
        )
    write_result(
        invitation.invite(open_storage(storage), installation_keys(keys, access), name, host, port, study_name)
    )


def doctor(study_name: CheckedStudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Check whether this machine is ready to train.

    Checks Python, installed packages, JAX and its devices, and the storage. The exit code is 1 if something is
    wrong.

    Examples:
        miiii-search doctor
        miiii-search doctor --storage postgresql://me:secret@db/miiii
    """
    from miiii_search.cli.views.doctor import check_installation

    streams.require_output()
    if not check_installation(storage, study_name):
        raise typer.Exit(exit_codes.FAILURE)


def make_keys(keys: KeysOption = None, access: AccessOption = None) -> None:
    """Create the passwords and certificates of an installation.

    Existing ones are kept.

    Examples:
        miiii-search make-keys --keys /var/lib/keys --access /var/lib/access
    """
    installation_keys(keys, access).prepare()


def check_settings() -> None:
    """Check the settings that docker-compose.yml passes on.

    They are environment variables. The exit code is 2 if one of them is wrong. docker compose run --rm check calls
    this command.

    Examples:
        miiii-search check-settings
    """
    from miiii_search.cli.environment_variables import check_compose_settings

    for line in check_compose_settings():
        print(f"warning: {line}", file=sys.stderr)
    print_line("the settings are valid")
