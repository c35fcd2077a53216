"""The table that compares several runs, typically one of each task (sections 4.3 to 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from miiii_search.analysis.findings import Findings
from miiii_search.analysis.measurements import Values
from miiii_search.analysis.quantities import QUANTITIES, Quantity

NOT_REACHED = "not reached"


@dataclass(frozen=True)
class ComparisonCell:
    """One quantity of one run."""

    values: Values = ()
    """Empty if the data for it is missing, or if training has not reached it."""
    text: str = ""
    """The values as text; empty if the data for it is missing."""


@dataclass(frozen=True)
class ComparisonRow:
    """One quantity, with one cell per run."""

    key: str
    """Name of the quantity in files, which does not change between versions."""
    name: str
    """Name of the quantity for readers."""
    unit: str
    """Empty for a plain number."""
    source: str
    """The paper's figure, table or section; empty if the paper does not contain the quantity."""
    cells: tuple[ComparisonCell, ...]
    paper: Mapping[str, str] = field(default_factory=dict)
    """Values printed in the paper, by task."""


@dataclass(frozen=True)
class ComparisonTable:
    """The quantities of several runs, with one column per run."""

    names: tuple[str, ...]
    """Names of the runs."""
    tasks: tuple[str, ...]
    """Tasks of the runs."""
    rows: tuple[ComparisonRow, ...]

    @property
    def header(self) -> list[str]:
        """Column titles for `lines`. The task is added in brackets if the run's name does not contain it."""
        runs = [name if task in name else f"{name} ({task})" for name, task in zip(self.names, self.tasks, strict=True)]
        return ["", "unit", *runs, "in the paper", "see"]

    def lines(self) -> list[list[str]]:
        """Return the table as text, with as many columns as `header`."""
        return [
            [row.name, row.unit, *(cell.text for cell in row.cells), _format_paper_values(row.paper), row.source]
            for row in self.rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain data: by key of the row, a list of values for each run."""
        return {
            "runs": list(self.names),
            "rows": {row.key: [list(cell.values) for cell in row.cells] for row in self.rows},
        }

    def markdown(self) -> str:
        """Return the table in Markdown."""
        numbers = ["---:"] * len(self.names)
        table = [self.header, ["---", "---", *numbers, "---", "---"], *self.lines()]
        return "".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |\n" for line in table)


def compare_runs(findings: Sequence[Findings]) -> ComparisonTable:
    """Return the table of several runs, in their order.

    Cells are empty where a run lacks the weights or the record from which the quantity is computed.
    """
    rows = [
        ComparisonRow(
            quantity.key,
            quantity.name,
            quantity.unit,
            quantity.source,
            tuple(_cell(quantity, found) for found in findings),
            quantity.paper,
        )
        for quantity in QUANTITIES
    ]
    return ComparisonTable(
        tuple(found.run.name for found in findings), tuple(found.run.experiment.task for found in findings), tuple(rows)
    )


def _cell(quantity: Quantity, findings: Findings) -> ComparisonCell:
    values = quantity.measure(findings)
    if values is None:
        return ComparisonCell()
    text = " / ".join(map(quantity.number_format.format, values)).replace("-", "−")
    return ComparisonCell(values, text or NOT_REACHED)


def _format_paper_values(printed: Mapping[str, str]) -> str:
    return ", ".join(f"{task} {value}" for task, value in printed.items())
