"""Storage URLs: parse them, refuse ambiguous ones, and show them without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

import sqlalchemy as sa

from miiii_search.errors import MiiiiSearchError

USER_INFORMATION = re.compile(r"[^@:/?#]*(:[^@]*)?")
"""The part of a URL before `@`, if it is a user, optionally with a password."""

PARAMETERS = re.compile(r"[^@:/?#]*/[^@?#]*\?[^@]*")
"""The part of a URL before `@`, if it is a host, a database and parameters, without a user and a port."""

PORT = re.compile(r"[^@:/?#]*:(\d+[/?#]|/[^@]*\?[^@]*=)")
"""The part of a URL before `@`, if it begins like a host and a port."""

PUBLIC_PARAMETERS = frozenset(
    {
        *("host", "hostaddr", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl"),
        *("application_name", "connect_timeout", "target_session_attrs", "channel_binding", "gssencmode", "options"),
    }
)
"""URL parameters whose values may be shown. The values of all others may be secret."""


def parse_url(text: str) -> sa.URL:
    """Parse a storage URL and set the database driver that this package uses.

    Args:
        text: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.

    Raises:
        MiiiiSearchError: The text is not a URL, its kind is unknown, or it can be read in two ways. The message
            repeats no part of a URL that can be read in two ways, because a password could be shown.
    """
    _check_user_information(text)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise MiiiiSearchError(
            "the storage is not a URL; use sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    kind = url.drivername.split("+")[0]
    if kind in ("postgres", "postgresql"):
        # SQLAlchemy 2.1 chooses psycopg 3 for postgresql:// without a driver.
        return url.set(drivername="postgresql+psycopg2")
    if kind == "sqlite" and url.drivername in ("sqlite", "sqlite+pysqlite"):
        if url.host or url.username or url.password or url.port:
            raise MiiiiSearchError("a SQLite storage is a file and has no host: use sqlite:///FILE, with three slashes")
        if not url.database or url.database == ":memory:":
            raise MiiiiSearchError("a storage in memory is lost with the process; use sqlite:///FILE")
        if url.query:
            raise MiiiiSearchError(
                f"a SQLite storage takes no parameters such as `{min(url.query)}`; use sqlite:///FILE"
            )
        return url.set(drivername="sqlite")
    raise MiiiiSearchError(
        f"the storage is of the unknown kind `{url.drivername}`; use sqlite:///FILE or "
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    )


def _check_user_information(text: str) -> None:
    """Raise `MiiiiSearchError` for the URL of a server whose password may end at more than one character."""
    kind, _, rest = text.partition("://")
    if kind.startswith("sqlite") or "@" not in rest:
        return
    before, _, after = rest.partition("@")
    is_user = USER_INFORMATION.fullmatch(before) and not PORT.match(before)
    if "@" not in after and (is_user or PARAMETERS.fullmatch(before)):
        return
    raise MiiiiSearchError(
        "it is not clear where the password in the storage's URL ends: percent-encode the special characters of user, "
        "password and parameters (%40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %), as "
        "urllib.parse.quote(password, safe='') in Python does"
    )


def postgres_url(role: str, password: str, host: str, port: int, database: str, options: Mapping[str, str]) -> str:
    """Return the URL of a database of a PostgreSQL server, with its password. Special characters are encoded."""
    url = sa.URL.create("postgresql", role, password, host, port, database, query=dict(options))
    return url.render_as_string(hide_password=False)


def redact_url(url: sa.URL) -> str:
    """Return the URL as it may be shown: without its password and without parameters that may be secret."""
    query = {key: value if key in PUBLIC_PARAMETERS else "***" for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("postgresql+psycopg2", "postgresql")
