"""Tables that adapt to the terminal: in a narrow one cells are shortened and columns left out, in a file nothing is."""

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
    """A column of a table, with all of its cells."""

    name: str
    cells: Sequence[str | Text | RenderableType]
    """Cells from top to bottom. Strings are shown literally, without markup."""
    align_left: bool = False
    """Whether cells are aligned to the left instead of to the right."""
    drop_order: int = 0
    """If a table is too wide, columns with the highest value are left out first; those with 0 are always shown."""
    shrink_to: int | None = None
    """Smallest width in characters to which cells may be shortened. None: they are never shortened."""
    fold: bool = False
    """Whether a cell that is too long continues on the next line, instead of being cut."""
    cell_width: int | None = None
    """Width of cells that are not text."""

    @property
    def full_width(self) -> int:
        """Width in characters if nothing is shortened."""
        header = max(Text(line).cell_len for line in self.name.split("\n"))
        if self.cell_width is not None:
            return max(self.cell_width, header)
        texts = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in self.cells]
        return max([header, *(text.cell_len for text in texts)])

    @property
    def smallest_width(self) -> int:
        """Width in characters if the column is shortened as far as possible."""
        return self.full_width if self.shrink_to is None else min(self.full_width, self.shrink_to)


@dataclass(frozen=True)
class FittedTable:
    """A table that fits the width of the console.

    It has all `columns` at their full width if they fit. Otherwise it has the `narrow_columns`, or `columns` if there
    are none, and shortens, folds or leaves out some of them.
    """

    columns: Sequence[Column]
    narrow_columns: Sequence[Column] = ()
    header_line: bool = False
    """Whether a line is drawn below the header."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for the console's width."""
        yield self.table(options.max_width)

    def table(self, width: int) -> Table:
        """Return the table for a console of this width in characters."""
        columns = self._columns_for(width)
        table = Table(
            box=SIMPLE_HEAD if self.header_line else None,
            show_edge=False,
            pad_edge=False,
            padding=(0, GAP - self.header_line, 0, 0),
            header_style="bold" if self.header_line else "dim",
        )
        spare = width - _total_width([column.smallest_width for column in columns])
        for column in columns:
            extra = min(column.full_width - column.smallest_width, max(spare, 0))
            spare -= extra
            table.add_column(
                Text(column.name),
                justify="left" if column.align_left else "right",
                vertical="top",
                width=column.smallest_width + extra,
                no_wrap=not column.fold,
                overflow="fold" if column.fold else "ellipsis",
            )
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        return table

    def _columns_for(self, width: int) -> list[Column]:
        """Return the columns that are shown at a width."""
        columns = list(self.columns)
        if self.narrow_columns and _total_width([column.full_width for column in columns]) > width:
            columns = list(self.narrow_columns)
        while _total_width([column.smallest_width for column in columns]) > width and any(
            column.drop_order for column in columns
        ):
            # The rightmost one of those with the highest drop order.
            columns.remove(max(reversed(columns), key=lambda column: column.drop_order))
        return columns


def _total_width(widths: Sequence[int]) -> int:
    """Return the width of a table whose columns have these widths."""
    return sum(widths) + GAP * max(len(widths) - 1, 0)
