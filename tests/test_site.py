"""The documentation's site: its menu, its links, what it loads, and what `make docs` writes."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from website.hooks import resolve_links

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
VENDOR = ROOT / "website" / "overrides" / "assets" / "vendor"


def test_links_between_docs_and_the_rest_of_the_repository_are_resolved() -> None:
    page = DOCS / "how-to" / "page.md"
    text = (
        "[a](../index.md#top) ![b](../images/lanes.png) [c](../../CONTRIBUTING.md#tests) [`Makefile`](../../Makefile) "
        "[the locks](../../requirements) [d](https://example.org/x) `[e](nowhere.md)`\n```\n[f](nowhere.md)\n```\n"
    )
    assert resolve_links(text, "how-to/page.md", page) == (
        "[a](../index.md#top) ![b](../images/lanes.png) [c](../contributing.md#tests) `Makefile` "
        "the locks (`requirements`) [d](https://example.org/x) `[e](nowhere.md)`\n```\n[f](nowhere.md)\n```\n"
    )
    with pytest.raises(FileNotFoundError, match=r"docs/how-to/page\.md links to nowhere\.md"):
        resolve_links("[x](nowhere.md)", "how-to/page.md", page)


def test_links_from_a_page_outside_docs_are_resolved() -> None:
    text = "[a](docs/index.md) [b](workers/README.md) [c](README.md)"
    resolved = resolve_links(text, "contributing.md", ROOT / "CONTRIBUTING.md")
    assert resolved == "[a](index.md) [b](workers.md) [c](index.md)"


def test_vendored_scripts_are_as_published() -> None:
    listed = dict(
        re.findall(r"^\| `(\S+\.js)` \|.*`([0-9a-f]{64})` \|$", (ROOT / "website/README.md").read_text(), re.M)
    )
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}


class Loaded(HTMLParser):
    """Collects what a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.urls.append(str(given["src"]))
        if tag == "link" and given.get("rel") in ("stylesheet", "preconnect", "icon", "preload"):
            self.urls.append(str(given["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("mkdocs") is None:
        pytest.skip("needs MkDocs: make docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.urls
        assert [url for url in parser.urls if "://" in url or url.startswith("//")] == [], page.name


@pytest.mark.slow
def test_search_needs_no_server(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = ") and "Contributing" in index
