"""What a second machine needs: a role, a certificate that names this host, and what to type there."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from miiii_search.deployment import roles
from miiii_search.deployment.keys import Keys, check_host, new_password, storage_url
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.database import Database
from miiii_search.study.names import check_name

AUTHORITY_AT = Path("/etc/miiii/ca.crt")
"""Where the worker's container of another machine has the authority's certificate."""


def invite(database: Database, keys: Keys, name: str, host: str, port: int, study: str | None) -> str:
    """Makes the role and the certificate; returns what to do with them, for a terminal.

    Invited again, a machine has another password, and the old one is void. Raises `MiiiiSearchError` if the database
    is no PostgreSQL, if this is not where its keys are, or for a name that no study has.
    """
    if database.url.drivername == "sqlite":
        raise MiiiiSearchError(
            "a SQLite file cannot be shared with another machine; use PostgreSQL, as docker compose up does"
        )
    if study:
        check_name(study)
    if not keys.authority_key.exists():
        raise MiiiiSearchError(
            f"there are no keys in {keys.keys}; invite is for docker compose exec coordinator miiii-search invite"
        )
    role, password = roles.role_name(name), new_password()
    keys.prepare([check_host(host)])
    roles.grant_workers(database)
    is_new = roles.set_worker(database, role, password)
    url = storage_url(role, password, host, AUTHORITY_AT, port)
    chosen = f"\nMIIII_STUDY={_quoted(study)}" if study else ""
    return f"""\
# The role {role} {"is there" if is_new else "has a new password"}, and the certificate names {host}.

# 1. On this machine, unless it is done: let others reach the database, by TLS and with such a password alone.
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

# A machine without a GPU adds the line MIIII_DEVICE=cpu to workers/.env first. The password stands here and nowhere
# else; to take it back: docker compose exec coordinator miiii-search invite --revoke --name {name}
"""


def project_name(keys: Keys, name: str) -> str:
    """A name for the worker's Compose project that no other search's worker on the same machine has."""
    certificate = x509.load_pem_x509_certificate(keys.authority.read_bytes())
    return f"miiii-search-{name}-{certificate.fingerprint(hashes.SHA256()).hex()[:8]}"


def _quoted(value: str) -> str:
    """A value as Compose takes it from a file: as it is, without variables and comments."""
    return value if re.fullmatch(r"[\w.:/-]+", value) else "'" + value.replace("'", r"\'") + "'"
