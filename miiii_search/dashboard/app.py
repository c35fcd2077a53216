"""optuna-dashboard as a WSGI application: read-only by default, guarded, and served by waitress."""

from __future__ import annotations

import errno
import functools
import gzip
import json
import logging
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import bottle  # type: ignore[import-untyped]
import optuna
import optuna_dashboard
import waitress  # type: ignore[import-untyped]
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import StorageInternalError
from optuna_dashboard import _serializer
from sqlalchemy.exc import OperationalError

from miiii_search.dashboard import auth
from miiii_search.dashboard.cache import CurrentDashboard
from miiii_search.dashboard.page import Page, parse_root_path, serialize_attributes
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from optuna.artifacts._protocol import ArtifactStore

logger = logging.getLogger(__name__)

READING = frozenset({"GET", "HEAD", "OPTIONS"})
STORAGE_DOWN = "The study storage does not answer: check that its database runs and is reachable."
SHOWN = frozenset(
    {
        *("image/png", "image/svg+xml", "text/csv", "text/plain"),
        *("application/json", "application/jsonl", "application/x-ndjson"),
    }
)
"""The kinds of artifacts that a browser may open; any other it saves."""
CONTAINED = [
    ("X-Content-Type-Options", "nosniff"),  # what an artifact is was said by whoever uploaded it
    ("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'"),  # an SVG may hold a script
]
STORE_DOWN = "The place where the study keeps its artifacts does not answer, or refuses."
MAX_BODY = 128 * 2**20  # bytes; the dashboard's own limit for an upload (bottle's MEMFILE_MAX)


def application(
    storage: optuna.storages.BaseStorage,
    artifact_store: ArtifactStore | None,
    *,
    writable: bool = False,
    password: str | None = None,
    root_path: str = "",
) -> WSGIApplication:
    """The dashboard of every study in `storage`, with `GET /healthz`.

    Answers 403 to a write unless `writable`, to a foreign host name when there is no password and to a write
    from another site's page; 401 without the password (an empty one counts as none; `/healthz` needs none);
    503 when the storage fails; 404 for an artifact without bytes. Refusals are JSON: `{"reason": ...}`.
    `GET /` leads to the note of the only study, or to the list of several. Artifacts are `SHOWN` or saved.
    `root_path` is the path below which a proxy serves it. Requests may come with it or without it: some proxies take
    it away. Raises `MiiiiSearchError` for a root path that is none.
    """
    page = Page(parse_root_path(root_path), read_only=not writable)
    _serializer.serialize_attrs = serialize_attributes

    def make(cached: optuna.storages.BaseStorage) -> Any:
        dashboard: Any = optuna_dashboard.wsgi(cached, artifact_store=artifact_store)
        dashboard.install(lambda view: _explained(view, page))
        return dashboard

    dashboards = CurrentDashboard(storage, make)

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def refuse(status: HTTPStatus, reason: str, *headers: tuple[str, str]) -> list[bytes]:
            return _answer(environ, start_response, status, {"reason": reason}, *headers)

        if page.root and f"{environ.get('PATH_INFO', '')}/".startswith(f"{page.root}/"):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(page.root) or "/"
        host, reading = environ.get("HTTP_HOST", ""), environ["REQUEST_METHOD"] in READING
        # Against DNS rebinding: a page of another site that resolves its own name to this machine.
        if not password and not auth.is_loopback(auth.hostname(host)):
            reason = f"The host {host!r} is not this machine: use localhost, or set a password."
            return refuse(HTTPStatus.FORBIDDEN, reason)
        if environ.get("PATH_INFO") == "/healthz" and reading:
            if _is_up(storage):
                return _answer(environ, start_response, HTTPStatus.OK, {"status": "ok"})
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, STORAGE_DOWN)
        if password and not auth.knows(password, environ.get("HTTP_AUTHORIZATION", "")):
            challenge = ("WWW-Authenticate", 'Basic realm="hyperparameter search", charset="UTF-8"')
            return refuse(HTTPStatus.UNAUTHORIZED, "The dashboard asks for its password.", challenge)
        if not reading and not writable:
            return refuse(HTTPStatus.FORBIDDEN, "The dashboard is read-only: restart it writable.")
        if not reading and auth.is_cross_origin(environ):
            return refuse(HTTPStatus.FORBIDDEN, "Another site's page may not write: use the dashboard's own.")
        if (path := environ.get("PATH_INFO", "")) == "/" and reading:
            start_response("302 Found", [("Location", page.root + _first_page(storage)), ("Content-Length", "0")])
            return []
        if path == "/static/bundle.js" and page.root:
            return _script(environ, start_response, page)
        if path.startswith("/artifacts/"):
            start_response = _contained(start_response)
        if path.startswith("/dashboard"):  # our page is not the file that it would compare
            environ.pop("HTTP_IF_MODIFIED_SINCE", None)
        # The dashboard answers 500 for its script and icon to a client that sends no such header, as curl.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        response: Iterable[bytes] = dashboards.respond(lambda dashboard: dashboard(environ, start_response))
        return response

    return guarded


def listen(app: WSGIApplication, host: str, port: int) -> tuple[Any, str]:
    """A waitress server that listens but does not run yet, and its URL; port 0 is any free port.

    Raises `MiiiiSearchError` when the address cannot be had.
    """
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if not 0 <= port <= 65535:
            raise OSError(errno.EINVAL, "not between 0 and 65535")
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        cause = str(error.strerror).partition(" (")[0]  # create_server repeats the address in brackets
        raise MiiiiSearchError(
            f"Cannot listen on port {port} of `{host}` ({cause}): "
            "choose another port with --port (0: any free one) or another address with --host"
        ) from None
    # A busy machine is no news: requests wait for a moment then.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = waitress.create_server(app, sockets=[listener], threads=8, max_request_body_size=MAX_BODY)
    name = f"[{host}]" if family == socket.AF_INET6 else host
    return server, f"http://{name}:{listener.getsockname()[1]}/"


def serve(app: WSGIApplication, host: str, port: int, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then return; `ready(url)` is called once requests are accepted.

    Raises `MiiiiSearchError` when the address cannot be had. Outside the main thread no signal ends it.
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
        # waitress leaves open what a browser keeps alive.
        for connection in list(server.active_channels.values()):
            connection.handle_close()
        server.close()
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _first_page(storage: optuna.storages.BaseStorage) -> str:
    try:
        studies = storage.get_all_studies()
    except Exception:  # the page itself says why
        return "/dashboard"
    return f"/dashboard/studies/{studies[0]._study_id}/note" if len(studies) == 1 else "/dashboard"


def _contained(start_response: StartResponse) -> StartResponse:
    """Answers with an artifact such that it cannot act as a page of the dashboard's own."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        # Other sites' pages are nobody that the dashboard should share artifacts with.
        kept = [header for header in headers if header[0].lower() != "access-control-allow-origin"]
        kind = next((value for name, value in kept if name.lower() == "content-type"), "")
        # A picture or table within a page is shown all the same: this only bears on what a tab opens.
        saved = [] if kind.partition(";")[0].strip().lower() in SHOWN else [("Content-Disposition", "attachment")]
        return start_response(status, [*kept, *CONTAINED, *saved], *exc_info)

    return start


def _explained(view: Callable[..., Any], page: Page) -> Callable[..., Any]:
    """A bottle plugin: a view whose exceptions become JSON answers with a reason, and whose answers suit `page`."""
    # The dashboard's decorator answers a mute 500 to every exception, so the view under it is called instead.
    inner = getattr(view, "__wrapped__", view)

    @functools.wraps(inner)
    def explained(*args: Any, **kwargs: Any) -> Any:
        if inner is not view:  # what the decorator sets, for the one view that returns JSON as text
            bottle.response.content_type = "application/json"
        try:
            if bottle.request.method == "PUT":
                page.accept(bottle.request.json)
            answer = page.present(inner(*args, **kwargs))
            if bottle.request.path.startswith("/dashboard"):
                answer = _page(answer, page)
            if bottle.response.status_code == 204:
                # The dashboard's page parses every answer as JSON and reports a failure when there is none.
                bottle.response.status = 200
            return answer
        except bottle.HTTPResponse:
            raise
        except (StorageInternalError, OperationalError) as error:
            logger.error("%s (%s)", STORAGE_DOWN, _without_password(error.__cause__ or error))
            status, reason = 503, STORAGE_DOWN
        except Exception as error:
            artifact = bottle.request.path.startswith("/artifacts/")
            if isinstance(error, ArtifactNotFound) and artifact:
                status, reason = 404, "The artifact is listed, but its bytes are not in the artifact store."
            elif isinstance(error, ArtifactStoreUnavailableError) and artifact:
                logger.error("%s (%s)", STORE_DOWN, error)
                status, reason = 503, STORE_DOWN
            elif isinstance(error, KeyError) and artifact:
                status, reason = 404, "There is no such study or trial."
            else:
                logger.exception("The dashboard failed on %s %s", bottle.request.method, bottle.request.path)
                status, reason = 500, "The dashboard failed: its log has the traceback."
        raise bottle.HTTPResponse({"reason": reason}, status)

    return explained


def _page(file: Any, page: Page) -> Any:
    """Our page in place of the dashboard's file, with its Content-Security-Policy."""
    if hasattr(file.body, "close"):
        file.body.close()
    # Browsers ask for it anew, since its root path and buttons are those of this process.
    headers = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache"}
    policy = file.get_header("Content-Security-Policy")
    return bottle.HTTPResponse(page.html, 200, **headers, **{"Content-Security-Policy": policy})


def _script(environ: WSGIEnvironment, start_response: StartResponse, page: Page) -> list[bytes]:
    """The page's script with the root path in its addresses. Browsers keep it, since the page names it by its tag."""
    headers = [("Content-Type", "text/javascript; charset=utf-8"), ("Cache-Control", "max-age=31536000, immutable")]
    content = page.script
    if "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
        headers.append(("Content-Encoding", "gzip"))
    else:
        content = gzip.decompress(content)
    start_response("200 OK", [*headers, ("Vary", "Accept-Encoding"), ("Content-Length", str(len(content)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def _answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: HTTPStatus,
    body: dict[str, str],
    *headers: tuple[str, str],
) -> list[bytes]:
    content = json.dumps(body).encode()
    length = ("Content-Length", str(len(content)))
    start_response(f"{status} {status.phrase}", [("Content-Type", "application/json"), length, *headers])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def _is_up(storage: optuna.storages.BaseStorage) -> bool:
    try:
        storage.get_study_id_from_name("")  # one look-up by an index, and no kind of storage caches it
    except KeyError:
        pass
    except Exception as error:
        logger.error("%s (%s)", STORAGE_DOWN, _without_password(error.__cause__ or error))
        return False
    return True


def _without_password(error: BaseException) -> str:
    return re.sub(r"://[^/\s]*@", "://***@", f"{type(error).__name__}: {error}")
