"""optuna-dashboard as a WSGI application: read-only by default, with a password, below a root path."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna
import optuna_dashboard
from optuna_dashboard import _serializer

from miiii_search.dashboard import auth
from miiii_search.dashboard.cache import CurrentDashboard
from miiii_search.dashboard.page import Page, parse_root_path, serialize_attributes
from miiii_search.dashboard.responses import contain_artifact, respond_json, respond_script
from miiii_search.dashboard.views import STORAGE_DOWN, log_storage_error, wrap_view

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from optuna.artifacts._protocol import ArtifactStore

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""HTTP methods that change nothing."""

CHALLENGE = ("WWW-Authenticate", 'Basic realm="hyperparameter search", charset="UTF-8"')


def make_application(
    storage: optuna.storages.BaseStorage,
    artifact_store: ArtifactStore | None,
    *,
    writable: bool = False,
    password: str | None = None,
    root_path: str = "",
) -> WSGIApplication:
    """Return the dashboard of all studies in a storage, with `GET /healthz`.

    Refusals and errors are JSON, `{"reason": ...}`:

    - 403 for a foreign host name without a password, a write that is not allowed, or a write from another site's page.
    - 401 without the password. `/healthz` needs none.
    - 503 if the storage does not answer, and 404 for an artifact without bytes.

    `GET /` leads to the note of the only study, or to the list of several. Browsers open artifacts of a few media
    types, and save all others.

    Args:
        storage: The storage.
        artifact_store: The store of the artifacts; None shows none.
        writable: Allow changes.
        password: The password; None or an empty one restricts access to this machine.
        root_path: Path below which a proxy serves the dashboard. Requests may come with or without it, because some
            proxies remove it.

    Raises:
        MiiiiSearchError: The root path is invalid.
    """
    page = Page(parse_root_path(root_path), read_only=not writable)
    _serializer.serialize_attrs = serialize_attributes

    def make_dashboard(cached: optuna.storages.BaseStorage) -> Any:
        dashboard: Any = optuna_dashboard.wsgi(cached, artifact_store=artifact_store)
        dashboard.install(lambda view: wrap_view(view, page))
        return dashboard

    return _Application(storage, CurrentDashboard(storage, make_dashboard), page, writable, password)


class _Refusal(NamedTuple):
    status: HTTPStatus
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


class _Application:
    """Checks each request, and passes it on to the dashboard."""

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        dashboard: CurrentDashboard,
        page: Page,
        writable: bool,
        password: str | None,
    ) -> None:
        self._storage = storage
        self._dashboard = dashboard
        self._page = page
        self._writable = writable
        self._password = password

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to one request."""
        root = self._page.root
        if root and f"{environ.get('PATH_INFO', '')}/".startswith(f"{root}/"):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(root) or "/"
        refusal = self._check_host(environ)
        if refusal is None and environ.get("PATH_INFO") == "/healthz" and environ["REQUEST_METHOD"] in READING:
            if self._is_up():
                return respond_json(environ, start_response, HTTPStatus.OK, {"status": "ok"})
            refusal = _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, STORAGE_DOWN)
        refusal = refusal or self._check_password(environ) or self._check_method(environ)
        if refusal is not None:
            body = {"reason": refusal.reason}
            return respond_json(environ, start_response, refusal.status, body, *refusal.headers)
        return self._respond(environ, start_response)

    def _check_host(self, environ: WSGIEnvironment) -> _Refusal | None:
        """Refuse foreign host names without a password.

        This prevents DNS rebinding: a page of another site that resolves its own name to this machine.
        """
        host = environ.get("HTTP_HOST", "")
        if self._password or auth.is_loopback(auth.hostname(host)):
            return None
        reason = f"The host {host!r} is not this machine: use localhost, or set a password."
        return _Refusal(HTTPStatus.FORBIDDEN, reason)

    def _check_password(self, environ: WSGIEnvironment) -> _Refusal | None:
        if not self._password or auth.has_password(self._password, environ.get("HTTP_AUTHORIZATION", "")):
            return None
        return _Refusal(HTTPStatus.UNAUTHORIZED, "The dashboard asks for its password.", (CHALLENGE,))

    def _check_method(self, environ: WSGIEnvironment) -> _Refusal | None:
        """Refuse writes that are not allowed, or that come from another site's page."""
        if environ["REQUEST_METHOD"] in READING:
            return None
        if not self._writable:
            return _Refusal(HTTPStatus.FORBIDDEN, "The dashboard is read-only: restart it writable.")
        if auth.is_cross_origin(environ):
            reason = "Another site's page may not write: use the dashboard's own."
            return _Refusal(HTTPStatus.FORBIDDEN, reason)
        return None

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a request that is allowed."""
        page, path = self._page, environ.get("PATH_INFO", "")
        if path == "/" and environ["REQUEST_METHOD"] in READING:
            location = page.root + self._first_page()
            start_response("302 Found", [("Location", location), ("Content-Length", "0")])
            return []
        if path == "/static/bundle.js" and page.root:
            return respond_script(environ, start_response, page)
        if path.startswith("/artifacts/"):
            start_response = contain_artifact(start_response)
        if path.startswith("/dashboard"):  # the date would be compared with the dashboard's file, not with our page
            environ.pop("HTTP_IF_MODIFIED_SINCE", None)
        # Without this header, as from curl, the dashboard answers 500 for its script and icon.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        response: Iterable[bytes] = self._dashboard.respond(lambda app: app(environ, start_response))
        return response

    def _first_page(self) -> str:
        """Return the path of the page that `/` leads to."""
        try:
            studies = self._storage.get_all_studies()
        except Exception:  # the page itself shows the error
            return "/dashboard"
        return f"/dashboard/studies/{studies[0]._study_id}/note" if len(studies) == 1 else "/dashboard"

    def _is_up(self) -> bool:
        """Return whether the storage answers."""
        try:
            self._storage.get_study_id_from_name("")  # one look-up by an index, which no kind of storage caches
        except KeyError:
            pass
        except Exception as error:
            log_storage_error(error)
            return False
        return True
