"""Changes to optuna-dashboard's page: its root path, its buttons, and how it shows numbers and attributes.

The page is one HTML file and one script with absolute paths. `Page` puts the root path in front of them, for a proxy
that serves the dashboard below a path of its host.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna_dashboard

from miiii_search.errors import MiiiiSearchError

FOLDER = Path(optuna_dashboard.__file__).parent
"""Folder of the installed optuna-dashboard."""

SCRIPT_PATHS = (
    ("`${this.baseURL}/api/", "`%s${this.baseURL}/api/"),
    ('url_prefix:"/dashboard"', 'url_prefix:"%s/dashboard"'),
    ("`/artifacts/", "`%s/artifacts/"),
    ("`${e}/artifacts/", "`%s${e}/artifacts/"),
    ("`/csv/", "`%s/csv/"),
)
"""Absolute paths in the script of optuna-dashboard 0.21, and their replacements; `%s` is the root path."""

STYLE = """
/* A trial's page: its values wrap, and nothing is wider than the window. */
main, main .MuiBox-root:has(h4) { min-width: 0; }
main .MuiBox-root > .MuiTypography-root + .MuiBox-root, main .MuiBox-root + .MuiBox-root:has(> .MuiBox-root > p) {
  min-width: 0; white-space: normal; overflow-wrap: anywhere;
}
main .MuiTypography-root { overflow-wrap: anywhere; }
@media (max-width: 700px) {
  /* One column: the list of trials above the trial, a label above its value, a plot below its settings. */
  main .MuiBox-root:has(> .MuiBox-root > .MuiList-root) { flex-direction: column; }
  main .MuiBox-root:has(> .MuiList-root) { flex: none; width: 100%; min-width: 100%; max-height: 25vh; }
  main .MuiBox-root:has(> p.MuiTypography-root + .MuiBox-root) { flex-wrap: wrap; }
  main .MuiGrid-item { flex-basis: 100%; max-width: 100%; }
  main .MuiCardContent-root > .MuiBox-root { flex-wrap: wrap; gap: 8px; }
  main .MuiTableContainer-root { overflow-x: auto; }
}
"""

READ_ONLY = """
/* A read-only dashboard offers nothing that its server refuses. */
button[aria-label="delete artifact"], button[aria-label="rename study"], button[aria-label="delete study"],
button[aria-label="skip trial"], button:has([data-testid="AddBoxIcon"]), button:has([data-testid="EditIcon"]),
button.MuiButton-outlinedError, .MuiCard-root:has([data-testid="UploadFileIcon"]) { display: none !important; }
"""
"""Styles that hide the buttons for changes, by their labels and icons: create, rename, delete, edit, upload, fail."""

SIGNIFICANT_DIGITS = 7
"""Significant digits of numbers on the page: those of float32, in which accuracies are computed."""

MAX_LIST_ITEMS = 8
"""Longest list that is shown in full."""

MAX_TEXT_LENGTH = 1024
"""Longest text of an attribute that is not a string, in characters."""

_ROOT = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_LINK = r"(\]\()%s/(dashboard|artifacts)/"


def parse_root_path(text: str) -> str:
    """Return the path below which a proxy serves the dashboard, without a slash at its end; empty for the root.

    Raises:
        MiiiiSearchError: The text is not a path of letters, digits and `. _ ~ -`.
    """
    path = text.strip().rstrip("/")
    if not _ROOT.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise MiiiiSearchError(
            f"--root-path must be a path such as /optuna, of letters, digits and . _ ~ -, but is {text[:100]!r}"
        )
    return path


class Page:
    """The dashboard's HTML and script below a root path. The API does not depend on its path.

    Args:
        root: The root path, without a slash at its end; empty for the root.
        read_only: Hide the buttons for changes.
    """

    def __init__(self, root: str, *, read_only: bool) -> None:
        self.root = root
        self._read_only = read_only

    @cached_property
    def html(self) -> str:
        """The HTML page, with the URL of its script, our styles and an icon."""
        text = (FOLDER / "index.html").read_text(encoding="utf-8")
        script = 'src="/static/bundle.js"'
        _check(text, script, "</head>")
        icon = f'<link rel="icon" href="{self.root}/favicon.ico">'
        style = STYLE + READ_ONLY * self._read_only
        text = text.replace(script, f'src="{self.root}/static/bundle.js?{self.tag}"')
        return text.replace("</head>", f"{icon}\n<style>{style}</style>\n</head>")

    @cached_property
    def script(self) -> bytes:
        """The page's script, compressed by gzip."""
        text = (FOLDER / "public" / "bundle.js").read_text(encoding="utf-8")
        _check(text, *(old for old, _ in SCRIPT_PATHS))
        for old, new in SCRIPT_PATHS:
            text = text.replace(old, new.replace("%s", self.root))
        return gzip.compress(text.encode(), compresslevel=6, mtime=0)

    @cached_property
    def tag(self) -> str:
        """Query of the script's URL, so that a browser does not use a cached script of another root path or version."""
        return hashlib.sha256(f"{self.root} {optuna_dashboard.__version__}".encode()).hexdigest()[:12]

    def present(self, response: Any) -> Any:
        """Shorten the numbers in a response of the API, and put the root path into its links.

        A response that is not a JSON object is returned as it is.
        """
        if not isinstance(response, dict):
            return response
        for trial in [*_list(response, "trials"), *_list(response, "best_trials")]:
            _shorten_trial(trial)
            self._add_root(trial)
        self._add_root(response)
        return response

    def accept(self, body: Any) -> None:
        """Remove the root path from the links of a note that was edited. Notes are stored without it."""
        if self.root and isinstance(body, dict) and isinstance(body.get("body"), str):
            body["body"] = re.sub(_LINK % re.escape(self.root), r"\1/\2/", body["body"])

    def _add_root(self, holder: dict[str, Any]) -> None:
        note = holder.get("note")
        if self.root and isinstance(note, dict) and isinstance(note.get("body"), str):
            note["body"] = re.sub(_LINK % "", rf"\1{self.root}/\2/", note["body"])


def _check(text: str, *needed: str) -> None:
    missing = [part for part in needed if part not in text]
    if missing:
        raise MiiiiSearchError(
            f"optuna-dashboard {optuna_dashboard.__version__} has no {missing[0]} in its page: "
            "install the version that pyproject.toml names"
        )


def _list(response: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = response.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _shorten_trial(trial: dict[str, Any]) -> None:
    if "values" in trial:
        trial["values"] = [_shorten(value) for value in trial["values"]]
    for report in _list(trial, "intermediate_values"):
        report["value"] = _shorten(report["value"])


def _shorten(value: Any) -> Any:
    """Round a float to the digits that are shown. Return any other value as it is."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) and math.isfinite(value) else value


def format_attribute(value: Any) -> str:
    """Return an attribute as text that can wrap.

    A mapping becomes `2 0.99, 3 1`, and a long list `[29 values from 0.1 to 1]`.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_attribute(item)}" for key, item in value.items())
    if isinstance(value, list):
        if len(value) <= MAX_LIST_ITEMS:
            return f"[{', '.join(format_attribute(item) for item in value)}]"
        if all(isinstance(item, int | float) for item in value):
            return f"[{len(value)} values from {format_attribute(min(value))} to {format_attribute(max(value))}]"
        return f"[{len(value)} values]"
    if isinstance(value, float):
        return f"{value:.{SIGNIFICANT_DIGITS}g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def serialize_attributes(attributes: Mapping[str, Any]) -> list[dict[str, str]]:
    """Serialize attributes for the page.

    This replaces the dashboard's own function, which writes mappings as JSON and cuts them after 1,024 characters.
    """
    return [{"key": key, "value": _attribute_text(value)} for key, value in attributes.items()]


def _attribute_text(value: Any) -> str:
    return value if isinstance(value, str) else format_attribute(value)[:MAX_TEXT_LENGTH]
