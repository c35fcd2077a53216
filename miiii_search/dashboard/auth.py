"""Access to the dashboard: the password, the addresses to listen on, and requests from other sites."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from miiii_search.environment import LINE_ENDS, read_value
from miiii_search.errors import MiiiiSearchError

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

PASSWORD = "MIIII_DASHBOARD_PASSWORD"
"""Environment variable with the password. With the suffix `_FILE`, it names a file that holds the password."""


def read_password(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the dashboard's password, or None if there is none.

    Args:
        environment: Environment variables. They hold the password, or name a file that holds it.

    Raises:
        MiiiiSearchError: Both variables are set, or the file cannot be read or is empty.
    """
    password, name = environment.get(PASSWORD), environment.get(f"{PASSWORD}_FILE")
    if not name:
        return password or None
    if password:
        raise MiiiiSearchError(f"{PASSWORD} and {PASSWORD}_FILE are both set: set only one of them")
    try:
        text = read_value(Path(name), f"{PASSWORD}_FILE", LINE_ENDS)
    except OSError as error:
        raise MiiiiSearchError(
            f"the dashboard's password cannot be read from {name} ({error.strerror}): correct {PASSWORD}_FILE, or the "
            "file"
        ) from None
    if not text:
        raise MiiiiSearchError(f"the dashboard's password file {name} is empty: write the password into it")
    return text


def check_exposure(host: str, password: str | None, published: str | None = None) -> None:
    """Check that the dashboard is not reachable from the network without a password.

    Args:
        host: Address that the dashboard listens on; empty for all addresses.
        password: The password, if there is one.
        published: In a container, the ADDRESS:PORT of the machine at which the port is published. It counts in place
            of `host`, because a container listens on all of its addresses.

    Raises:
        MiiiiSearchError: The dashboard would be open to the network.
    """
    address = host if published is None else published.rpartition(":")[0]
    if not (password or is_loopback(address)):
        where = f"`{address}`" if address else "every address of this machine"
        way_out = "use --host 127.0.0.1" if published is None else "publish it at 127.0.0.1"
        raise MiiiiSearchError(
            f"The dashboard would be open to the network on {where}: set {PASSWORD} or {PASSWORD}_FILE, or {way_out}"
        )


def hostname(host: str) -> str:
    """Return the host name of a Host header, without its port; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Return whether a name or address is a loopback address, which only this machine can reach."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def has_password(password: str, authorization: str) -> bool:
    """Return whether an Authorization header holds the password, with any user name."""
    scheme, _, token = authorization.partition(" ")
    try:
        _, _, given = base64.b64decode(token.strip(), validate=True).partition(b":")
    except ValueError:
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, password.encode())


def is_cross_origin(environ: WSGIEnvironment) -> bool:
    """Return whether a request comes from another site's page, by the headers that browsers send.

    The rule is that of Go's `CrossOriginProtection`.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = environ.get("HTTP_ORIGIN")
    return origin is not None and origin.partition("://")[2] != environ.get("HTTP_HOST")
