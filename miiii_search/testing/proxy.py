"""A TCP proxy in front of a database, which simulates network faults."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from types import TracebackType

import sqlalchemy as sa

DELAY_SECONDS = 1.0
"""Delay of each piece of data with the fault "delay"."""


class Proxy:
    """Forwards connections to the server of a storage URL, and breaks them if `fault` is set.

    The faults are:

    - "cut": connections are closed;
    - "silence": connections stay open, but no data is forwarded;
    - "half-closed": the client sees the end of the server's data, and may still send;
    - "delay": data arrives after `DELAY_SECONDS`.

    A fault affects new connections. Call `break_connections` to apply it, or its end, to existing ones. When the fault
    is over, `fault` is empty, and connections that were broken are closed.

    Attributes:
        url: The storage URL with the proxy's host and port.
        fault: The fault, or an empty string.
    """

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self._server = (parsed.host or "127.0.0.1", parsed.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = parsed.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        self.fault = ""
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and accept no more."""
        self._listener.close()
        self.fault = ""
        self.break_connections()

    def break_connections(self) -> None:
        """Apply the fault, or its end, to the existing connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for client, server in pairs:
            if self.fault == "half-closed":
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
            if self.fault in ("", "cut"):
                for end in (client, server):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
            else:
                with self._lock:
                    self._pairs.append((client, server))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.fault == "cut":
                    client.close()
                    continue
                try:
                    server = socket.create_connection(self._server)
                except OSError:  # the server is being restarted
                    client.close()
                    continue
                with self._lock:
                    self._pairs.append((client, server))
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as ready, contextlib.suppress(OSError):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    source: socket.socket = key.fileobj  # type: ignore[assignment]
                    data = source.recv(65536)
                    if not data:
                        return
                    if self.fault == "delay":
                        time.sleep(DELAY_SECONDS)
                    if self.fault in ("", "delay"):
                        key.data.sendall(data)
