"""Serves the dashboard's application with waitress."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import waitress  # type: ignore[import-untyped]

from miiii_search.errors import MiiiiSearchError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

MAX_BODY = 128 * 2**20
"""Largest request in bytes. This is the dashboard's own limit for an upload (`MEMFILE_MAX` of bottle)."""

MAX_PORT = 65535


def listen(app: WSGIApplication, host: str, port: int) -> tuple[Any, str]:
    """Create a waitress server that listens, but does not run yet.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on; 0 is any free one.

    Returns:
        The server and its URL.

    Raises:
        MiiiiSearchError: The address is not available.
    """
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if not 0 <= port <= MAX_PORT:
            raise OSError(errno.EINVAL, f"not between 0 and {MAX_PORT}")
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        cause = str(error.strerror).partition(" (")[0]  # create_server repeats the address in brackets
        raise MiiiiSearchError(
            f"Cannot listen on port {port} of `{host}` ({cause}): "
            "choose another port with --port (0: any free one) or another address with --host"
        ) from None
    # Waitress warns when requests have to wait for a moment, which is normal on a busy machine.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = waitress.create_server(app, sockets=[listener], threads=8, max_request_body_size=MAX_BODY)
    name = f"[{host}]" if family == socket.AF_INET6 else host
    return server, f"http://{name}:{listener.getsockname()[1]}/"


def serve(app: WSGIApplication, host: str, port: int, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM. Outside the main thread, no signal ends it.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on; 0 is any free one.
        ready: Called with the URL once requests are accepted.

    Raises:
        MiiiiSearchError: The address is not available.
    """
    server, url = listen(app, host, port)
    in_main = threading.current_thread() is threading.main_thread()
    # waitress ends its loop and lets its threads finish on the exception that Python's SIGINT handler raises.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        if ready is not None:
            ready(url)
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        # waitress does not close connections that browsers keep alive.
        for connection in list(server.active_channels.values()):
            connection.handle_close()
        server.close()
        if in_main:
            signal.signal(signal.SIGTERM, before)
