"""Commands for an installation of containers, and for the machines that are added to it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from miiii_search.cli import streams
from miiii_search.cli.options import DEFAULT_STORAGE, AccessOption, KeysOption, StorageOption, StudyOption
from miiii_search.cli.output import say, write
from miiii_search.cli.resolve import installation_keys, open_storage
from miiii_search.errors import MiiiiSearchError


def make_keys(keys: KeysOption = None, access: AccessOption = None) -> None:
    """Make the passwords and certificates of an installation of containers, where there are none.

    Example: miiii-search make-keys --keys /var/lib/miiii/keys --access /var/lib/miiii/access
    """
    installation_keys(keys, access).prepare()


def check_settings() -> None:
    """Check the settings in the environment, as docker-compose.yml passes them on; exit code 2 if one is wrong.

    Example: docker compose run --rm check
    """
    from miiii_search.cli import environment_variables

    for line in environment_variables.check_settings():
        print(f"warning: {line}", file=sys.stderr)
    say("the settings are valid")


def invite(
    host: Annotated[
        str | None, typer.Option(help="The name or address by which the other machine reaches this one")
    ] = None,
    name: Annotated[
        str, typer.Option(help="What to call the other machine: a role of the database is named for it")
    ] = "",
    port: Annotated[int, typer.Option(help="The port at which this machine publishes the database")] = 5432,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Take the role away instead, and end its connections")
    ] = False,
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    keys: KeysOption = None,
    access: AccessOption = None,
) -> None:
    """Let another machine train: make its password and certificate, and print what to type there.

    Example: docker compose exec coordinator miiii-search invite --host gpu1.lab --name gpu2
    """
    from miiii_search.deployment import invite as invitation
    from miiii_search.deployment.roles import drop_worker, role_name

    if not name:
        raise MiiiiSearchError("say which machine is meant, with --name gpu2 for instance")
    if revoke:
        drop_worker(open_storage(storage), role_name(name))
        say(f"the role {role_name(name)} is gone; its trials go back to the queue when their leases run out")
        return
    if not host:
        raise MiiiiSearchError("say by which name or address the other machine reaches this one, with --host gpu1.lab")
    write(invitation.invite(open_storage(storage), installation_keys(keys, access), name, host, port, study))


def doctor(study: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Check Python, JAX and its devices, versions, and the storage; exit code 1 if something is wrong.

    Example: miiii-search doctor --storage postgresql://me:secret@db/miiii
    """
    from miiii_search.cli.views.doctor import check_installation

    streams.need_output()
    if not check_installation(storage, study):
        raise typer.Exit(1)
