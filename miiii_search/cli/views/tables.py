"""Tables that fit: in a narrow terminal less is shown, in a file nothing is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2
"""Spaces between two columns."""


@dataclass(frozen=True)
class Column:
    """A column of a table, with all its cells.

    A string is shown as it is, without markup.
    """

    name: str
    cells: Sequence[str | Text | RenderableType]
    left: bool = False
    """Whether it is flush left."""
    rank: int = 0
    """Where there is no room for all columns, those of the highest rank are left out first; those of rank 0 stay."""
    least: int | None = None
    """The fewest characters to which cells may be shortened. None: never."""
    fold: bool = False
    """Whether what is too long goes on in the next line, and is not cut."""
    width: int | None = None
    """For cells that are no text: how wide they are."""

    @property
    def natural(self) -> int:
        """How wide it is where nothing is shortened."""
        head = max(Text(line).cell_len for line in self.name.split("\n"))
        if self.width is not None:
            return max(self.width, head)
        texts = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in self.cells]
        return max([head, *(text.cell_len for text in texts)])

    @property
    def narrowest(self) -> int:
        """How wide it has to be."""
        return self.natural if self.least is None else min(self.natural, self.least)


@dataclass(frozen=True)
class Fitted:
    """A table as wide as there is room for.

    With all columns as they are, if that fits; otherwise with those of `narrow` if there are any, of which some may be
    shortened, folded or left out.
    """

    columns: Sequence[Column]
    narrow: Sequence[Column] = ()
    rule: bool = False
    """Whether a line is drawn below the names."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table(options.max_width)

    def table(self, width: int) -> Table:
        """Returns the table for a terminal of this width."""
        chosen = list(self.columns)
        if self.narrow and _total([column.natural for column in chosen]) > width:
            chosen = list(self.narrow)
        while _total([column.narrowest for column in chosen]) > width and any(column.rank for column in chosen):
            # The last one of the highest rank.
            chosen.remove(max(reversed(chosen), key=lambda column: column.rank))
        table = Table(
            box=SIMPLE_HEAD if self.rule else None,
            show_edge=False,
            pad_edge=False,
            padding=(0, GAP - self.rule, 0, 0),
            header_style="bold" if self.rule else "dim",
        )
        left = width - _total([column.narrowest for column in chosen])
        for column in chosen:
            more = min(column.natural - column.narrowest, max(left, 0))
            left -= more
            table.add_column(
                Text(column.name),
                justify="left" if column.left else "right",
                vertical="top",
                width=column.narrowest + more,
                no_wrap=not column.fold,
                overflow="fold" if column.fold else "ellipsis",
            )
        for row in zip(*(column.cells for column in chosen), strict=True):
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        return table


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(len(widths) - 1, 0)
