"""Invitations for other machines: a database role, a server certificate for this host, and instructions."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from miiii_search.deployment.keys import Keys, check_host, new_password, storage_url
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import roles
from miiii_search.storage.database import Database
from miiii_search.storage.urls import parse_url
from miiii_search.study.names import check_name

AUTHORITY_IN_CONTAINER = Path("/etc/miiii/ca.crt")
"""Path of the authority's certificate in a worker's container on another machine."""


def invite(database: Database, keys: Keys, name: str, host: str, port: int, study: str | None) -> str:
    """Create a role and a certificate for another machine.

    Inviting a machine again gives it a new password and invalidates the old one.

    Args:
        database: PostgreSQL database of this installation.
        keys: Folders with the installation's keys.
        name: Name of the machine, see `role_name`.
        host: Host name or address under which the other machine reaches this one.
        port: Published port of the database.
        study: Study that the machine trains, or None for the only one.

    Returns:
        Instructions for a terminal, with the shell commands to type on the other machine.

    Raises:
        MiiiiSearchError: The database is SQLite, the keys are not here, or a name is not valid.
    """
    if database.url.drivername == "sqlite":
        raise MiiiiSearchError(
            "a SQLite file cannot be shared with another machine; use PostgreSQL, as docker compose up does"
        )
    if study:
        check_name(study)
    if not keys.authority_key.exists():
        raise MiiiiSearchError(
            f"there are no keys in {keys.keys}; run invite in the coordinator's container: "
            "docker compose exec coordinator miiii-search invite"
        )
    role, password = roles.role_name(name), new_password()
    keys.prepare([check_host(host)])
    roles.grant_workers(database)
    is_new = roles.create_or_update_worker(database, role, password)
    url = storage_url(role, password, host, AUTHORITY_IN_CONTAINER, port)
    what = "was created" if is_new else "has a new password"
    return f"# The role {role} {what}. The certificate names {host}.\n\n{_instructions(keys, name, url, port, study)}"


def _instructions(keys: Keys, name: str, url: str, port: int, study: str | None) -> str:
    """Return the shell commands for both machines, with comments."""
    chosen = f"\nMIIII_STUDY={_quoted(study)}" if study else ""
    return f"""\
# 1. On this machine, once: publish the database. It accepts only TLS connections with such a password.
#    Put these lines into .env, type docker compose up --detach, and open port {port} in the firewall:
#      MIIII_DATABASE=published
#      MIIII_DATABASE_PORT={port}

# 2. On the other machine, in a clone of this repository, type:

[ ! -d workers/ca.crt ] || rmdir workers/ca.crt
cat > workers/ca.crt <<'END'
{keys.authority.read_text().strip()}
END
chmod 644 workers/ca.crt
touch workers/.env && chmod 600 workers/.env && cat > workers/.env <<'END'
COMPOSE_PROJECT_NAME={project_name(keys, name)}
MIIII_STORAGE={url}{chosen}
MIIII_WORKER_NAME={_quoted(name)}
END
docker compose -f workers/docker-compose.yml up

# On a machine without a GPU, first add the line MIIII_DEVICE=cpu to workers/.env.
# This password is shown once and stored nowhere else.
# To revoke it: docker compose exec coordinator miiii-search invite --revoke --name {name}
"""


def project_name(keys: Keys, name: str) -> str:
    """Return a Compose project name that is unique among the installations that a machine works for."""
    certificate = x509.load_pem_x509_certificate(keys.authority.read_bytes())
    return f"miiii-search-{name}-{certificate.fingerprint(hashes.SHA256()).hex()[:8]}"


def _quoted(value: str) -> str:
    """Quote a value for a Compose .env file, so that it is taken literally."""
    return value if re.fullmatch(r"[\w.:/-]+", value) else "'" + value.replace("'", r"\'") + "'"


def create_local_worker(database: Database, keys: Keys) -> None:
    """Create the group role, and the role of this machine's workers with the password in its file.

    Does nothing on SQLite.
    """
    if database.url.drivername == "sqlite":
        return
    roles.grant_workers(database)
    url = parse_url(keys.worker_url.read_text().strip())
    roles.create_or_update_worker(database, str(url.username), str(url.password))
