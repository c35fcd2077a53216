"""Everything about a run in a folder: figures, numbers, and a page that holds them all."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from miiii_search.analysis.figures.style import figure_bytes, figure_style
from miiii_search.errors import reason
from miiii_search.files import write_file

NUMBERS, PAGE = "numbers.json", "report.html"

MADE_BY = "Made by miiii-search"
"""At the end of each page."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure that is to be drawn."""

    name: str
    """Of its files."""
    section: str
    title: str
    caption: str
    source: str
    """The figure of the paper, or why it is here."""
    draw: Callable[[], Figure | None]
    """None if what it needs is missing. Called within `styled()`."""


@dataclass(frozen=True)
class RenderedFigure:
    """A figure as files hold it."""

    picture: FigureSpec
    png: bytes
    svg: bytes


def draw(
    pictures: Iterable[FigureSpec],
    on_step: Callable[[str], None] = lambda what: None,
    on_failure: Callable[[str], None] | None = None,
) -> list[RenderedFigure]:
    """Draws those of the pictures that have what they need.

    One that fails is left out, and `on_failure` is given a line about it; without `on_failure` the error is raised.
    """
    drawn = []
    for picture in pictures:
        on_step(picture.title)
        try:
            with figure_style():
                figure = picture.draw()
                if figure is not None:
                    drawn.append(RenderedFigure(picture, figure_bytes(figure, "png"), figure_bytes(figure, "svg")))
        except Exception as error:
            if on_failure is None:
                raise
            on_failure(f"the figure {picture.name} could not be drawn: {reason(error)}")
    return drawn


@dataclass(frozen=True)
class Page:
    """What stands around the figures."""

    title: str
    summary: str
    """A sentence."""
    table: Sequence[tuple[str, str]]
    """Names and values."""
    remarks: Sequence[str]
    """What is missing, or is to be known."""
    made_by: str
    grid: Sequence[Sequence[str]] = ()
    """A larger table, its header first."""


def file_names(pictures: Iterable[str]) -> list[str]:
    """Returns the names of all files that `write` may write, from those of the pictures."""
    return [NUMBERS, PAGE, *(f"{name}.{kind}" for name in pictures for kind in ("png", "svg"))]


def is_report(folder: Path) -> bool:
    """Whether the page in a folder is one that `write` wrote."""
    try:
        return MADE_BY in (folder / PAGE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def remove_missing(out: Path, pictures: Iterable[FigureSpec], drawn: Sequence[RenderedFigure]) -> None:
    """Removes the files of pictures that were not drawn. Raises `OSError`."""
    for missing in {picture.name for picture in pictures} - {one.picture.name for one in drawn}:
        for kind in ("png", "svg"):
            (out / f"{missing}.{kind}").unlink(missing_ok=True)


def write(
    out: Path, page: Page, pictures: Iterable[FigureSpec], drawn: Sequence[RenderedFigure], numbers: object
) -> list[Path]:
    """Writes NAME.png, NAME.svg, numbers.json and report.html. Raises `OSError`.

    Of the `pictures` those that could not be drawn are removed, so that none is of an earlier run.
    """
    out.mkdir(parents=True, exist_ok=True)
    remove_missing(out, pictures, drawn)
    files = {NUMBERS: (json.dumps(numbers, allow_nan=False) + "\n").encode(), PAGE: render_html(page, drawn).encode()}
    for one in drawn:
        files[f"{one.picture.name}.png"] = one.png
        files[f"{one.picture.name}.svg"] = one.svg
    for name, data in files.items():
        write_file(out / name, data)
    return [out / name for name in files]


STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 2rem 1rem 5rem;
  max-width: 56rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { margin: 3rem 0 0; border-bottom: 1px solid #ccc; }
nav { margin: 1.5rem 0; } nav a { margin-right: 1.2rem; white-space: nowrap; } a { color: #0b57a4; }
table { border-collapse: collapse; margin: 1.5rem 0; } td, th { padding: .25rem 1.2rem .25rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #e4e4e4; font-variant-numeric: tabular-nums; }
figure { margin: 2rem 0; } figure h3 { margin: 0 0 .5rem; font-size: 1.05rem; }
figure img { max-width: 100%; height: auto; } figcaption { color: #444; font-size: .92rem; max-width: 46rem; }
.wide { overflow-x: auto; } .source { color: #777; font-weight: normal; }
.remarks { background: #fff8e1; padding: .8rem 1rem .8rem 2.2rem; }
footer { margin-top: 4rem; color: #777; font-size: .85rem; }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
"""


def render_html(page: Page, drawn: Sequence[RenderedFigure]) -> str:
    """One file that needs no other, no network and no script."""
    sections = list(dict.fromkeys(one.picture.section for one in drawn))
    links = "".join(f'<a href="#{_id(section)}">{html.escape(section)}</a>' for section in sections)
    rows = "".join(f"<tr><th>{html.escape(n)}</th><td>{html.escape(v)}</td></tr>" for n, v in page.table)
    remarks = "".join(f"<li>{html.escape(line)}</li>" for line in page.remarks)
    body = "".join(
        f'<h2 id="{_id(section)}">{html.escape(section)}</h2>'
        + "".join(_figure(one) for one in drawn if one.picture.section == section)
        for section in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{html.escape(page.title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(page.title)}</h1><p>{html.escape(page.summary)}</p><nav>{links}</nav>"
        f'<div class="wide">{_table(rows)}{_table(_grid(page.grid))}</div>'
        + (f'<ul class="remarks">{remarks}</ul>' if remarks else "")
        + f"{body}<footer>{html.escape(page.made_by)}</footer></body></html>\n"
    )


def _table(rows: str) -> str:
    return f"<table>{rows}</table>" if rows else ""


def _grid(lines: Sequence[Sequence[str]]) -> str:
    def row(line: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in line) + "</tr>"

    return "".join(row(line, "td" if k else "th") for k, line in enumerate(lines))


def _figure(one: RenderedFigure) -> str:
    picture, data = one.picture, base64.b64encode(one.png).decode()
    return (
        f'<figure id="{picture.name}"><h3>{html.escape(picture.title)} '
        f'<span class="source">{html.escape(picture.source)}</span></h3>'
        f'<img alt="{html.escape(picture.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
    )


def _id(section: str) -> str:
    return "section-" + "".join(c if c.isalnum() else "-" for c in section.lower())
