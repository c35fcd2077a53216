"""Hooks of MkDocs: pages that lie outside `docs/`, and links from one to the other."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

OUTSIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "workers/README.md": "workers.md",
}
"""Pages outside `docs/`, with their paths on the site."""

SEARCH_BOOST = {"reference/python.md": 0.01, "changelog.md": 0.3, "explanation/architecture.md": 2}
"""Weight of pages among the results of a search. Pages that name everything would come first otherwise."""

LINK_OR_CODE = re.compile(
    r"^ *```.*?^ *```|(!?)\[((?:`[^`\n]*`|[^\]`])*)\]\(([^)\s#:]+)(#[^)\s]*)?\)|`[^`\n]+`", re.MULTILINE | re.DOTALL
)
"""A link, or code, in which nothing is a link."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside `docs/`."""
    from mkdocs.structure.files import File

    for source, path in OUTSIDE.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, path, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Resolve links from and to the pages that lie outside `docs/`, and weigh the page for the search."""
    here = page.file.src_uri
    if here in SEARCH_BOOST:
        page.meta["search"] = {"boost": SEARCH_BOOST[here]}
    source = {path: name for name, path in OUTSIDE.items()}.get(here)
    return resolve_links(markdown, here, ROOT / source if source else DOCS / here)


def resolve_links(markdown: str, here: str, source: Path) -> str:
    """Return a page's text with links that are right on the site.

    A link to a file that the site does not have becomes the path of that file in the repository.

    Args:
        markdown: The text.
        here: The page's path on the site.
        source: The page's file.

    Raises:
        FileNotFoundError: A link leads nowhere.
    """

    def resolve(match: re.Match[str]) -> str:
        image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if target is None:
            return match[0]
        file = Path(os.path.normpath(source.parent / target))
        if not file.exists():
            raise FileNotFoundError(f"{source.relative_to(ROOT)} links to {target}, which does not exist")
        name = file.relative_to(ROOT).as_posix()
        if file.is_relative_to(DOCS):
            path = file.relative_to(DOCS).as_posix()
        elif name in OUTSIDE:
            path = OUTSIDE[name]
        elif name == "README.md":
            path = "index.md"
        else:
            return f"`{name}`" if text.strip("`") in (name, target, file.name) else f"{text} (`{name}`)"
        return f"{image}[{text}]({os.path.relpath(path, os.path.dirname(here) or '.')}{anchor})"

    return LINK_OR_CODE.sub(resolve, markdown)
