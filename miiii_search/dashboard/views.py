"""A plugin for optuna-dashboard's views: errors get a reason, and responses suit the page."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import bottle  # type: ignore[import-untyped]
from optuna.artifacts.exceptions import ArtifactNotFound

from miiii_search.dashboard.page import Page
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError
from miiii_search.storage.retry import is_operational_error

logger = logging.getLogger(__name__)

STORAGE_DOWN = "The study storage does not answer: check that its database runs and is reachable."
STORE_DOWN = "The artifact store of the study does not answer, or refuses access."


def wrap_view(view: Callable[..., Any], page: Page) -> Callable[..., Any]:
    """Return a view whose exceptions become JSON responses with a reason, and whose responses suit the page.

    Args:
        view: A view of optuna-dashboard. This is called for each view, as a plugin of bottle.
        page: The page that the responses are for.
    """
    # The dashboard's decorator answers every exception with an empty 500. So the view below it is called.
    inner = getattr(view, "__wrapped__", view)

    @functools.wraps(inner)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if inner is not view:  # as the decorator does, for the one view that returns JSON as text
            bottle.response.content_type = "application/json"
        try:
            return _adapt_response(lambda: inner(*args, **kwargs), page)
        except bottle.HTTPResponse:
            raise
        except Exception as error:
            status, reason = _explain(error)
            raise bottle.HTTPResponse({"reason": reason}, status) from error

    return wrapped


def log_storage_error(error: BaseException) -> None:
    """Log that the storage does not answer, without the password of its URL."""
    cause = error.__cause__ or error
    message = re.sub(r"://[^/\s]*@", "://***@", f"{type(cause).__name__}: {cause}")
    logger.error("%s (%s)", STORAGE_DOWN, message)


def _adapt_response(respond: Callable[[], Any], page: Page) -> Any:
    if bottle.request.method == "PUT":
        page.accept(bottle.request.json)
    response = page.present(respond())
    if bottle.request.path.startswith("/dashboard"):
        response = _replace_page(response, page)
    if bottle.response.status_code == HTTPStatus.NO_CONTENT:
        # The dashboard's page parses every response as JSON, and reports a failure if it is empty.
        bottle.response.status = HTTPStatus.OK
    return response


def _explain(error: Exception) -> tuple[int, str]:
    """Return the status and the reason for an exception of a view. Log it, unless the request is at fault."""
    if is_operational_error(error):
        log_storage_error(error)
        return HTTPStatus.SERVICE_UNAVAILABLE, STORAGE_DOWN
    if bottle.request.path.startswith("/artifacts/"):
        if isinstance(error, ArtifactNotFound):
            return HTTPStatus.NOT_FOUND, "The artifact is listed, but its bytes are not in the artifact store."
        if isinstance(error, ArtifactStoreUnavailableError):
            logger.error("%s (%s)", STORE_DOWN, error)
            return HTTPStatus.SERVICE_UNAVAILABLE, STORE_DOWN
        if isinstance(error, KeyError):
            return HTTPStatus.NOT_FOUND, "There is no such study or trial."
    logger.exception("The dashboard failed on %s %s", bottle.request.method, bottle.request.path)
    return HTTPStatus.INTERNAL_SERVER_ERROR, "The dashboard failed: its log has the traceback."


def _replace_page(file: Any, page: Page) -> Any:
    """Return our page in place of the dashboard's file, with the file's Content-Security-Policy."""
    if hasattr(file.body, "close"):
        file.body.close()
    # Browsers request it each time, because the root path and the buttons depend on this process.
    headers = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache"}
    policy = file.get_header("Content-Security-Policy")
    return bottle.HTTPResponse(page.html, 200, **headers, **{"Content-Security-Policy": policy})
