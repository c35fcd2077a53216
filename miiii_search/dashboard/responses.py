"""Responses of the dashboard's server that do not come from optuna-dashboard, and headers that are added to its own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from miiii_search.dashboard.page import Page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

INLINE_TYPES = frozenset(
    {
        *("image/png", "image/svg+xml", "text/csv", "text/plain"),
        *("application/json", "application/jsonl", "application/x-ndjson"),
    }
)
"""Media types of artifacts that a browser may open. It saves all others."""

ARTIFACT_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),  # the uploader chose the media type
    ("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'"),  # an SVG may hold a script
]
"""Headers of every artifact, so that it cannot run scripts as a page of the dashboard."""


def respond_json(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: HTTPStatus,
    body: dict[str, str],
    *headers: tuple[str, str],
) -> list[bytes]:
    """Respond with a JSON object."""
    content = json.dumps(body).encode()
    length = ("Content-Length", str(len(content)))
    start_response(f"{status} {status.phrase}", [("Content-Type", "application/json"), length, *headers])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def respond_script(environ: WSGIEnvironment, start_response: StartResponse, page: Page) -> list[bytes]:
    """Respond with the page's script. Browsers keep it, because the page's URL of the script holds its version."""
    headers = [("Content-Type", "text/javascript; charset=utf-8"), ("Cache-Control", "max-age=31536000, immutable")]
    content = page.script
    if "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
        headers.append(("Content-Encoding", "gzip"))
    else:
        content = gzip.decompress(content)
    start_response("200 OK", [*headers, ("Vary", "Accept-Encoding"), ("Content-Length", str(len(content)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def contain_artifact(start_response: StartResponse) -> StartResponse:
    """Return a `start_response` that adds `ARTIFACT_HEADERS`, and has the browser save most media types."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        # The dashboard would let pages of other sites read artifacts.
        kept = [header for header in headers if header[0].lower() != "access-control-allow-origin"]
        media_type = next((value for name, value in kept if name.lower() == "content-type"), "")
        is_inline = media_type.partition(";")[0].strip().lower() in INLINE_TYPES
        # This affects only a tab that opens the artifact. A page shows images and tables in any case.
        disposition = [] if is_inline else [("Content-Disposition", "attachment")]
        return start_response(status, [*kept, *ARTIFACT_HEADERS, *disposition], *exc_info)

    return start
