"""Several runs side by side in one table (4.3 to 5): typically of `nanda`, `miiii`, `basis` and `masked`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from miiii_search.analysis.findings import Findings
from miiii_search.analysis.quantities import QUANTITIES, Quantity, Values

NOT_REACHED = "not reached"


@dataclass(frozen=True)
class ComparisonCell:
    """What one run shows of one quantity."""

    values: Values = ()
    """Empty where what it needs is missing, or where training has not come to it."""
    text: str = ""
    """As a reader wants to see it; empty where what it needs is missing."""


@dataclass(frozen=True)
class ComparisonRow:
    """One quantity, a cell a run."""

    key: str
    """Stable, for files."""
    name: str
    unit: str
    """Empty for a plain number."""
    reference: str
    """The paper's figure, table or section; empty for what the paper does not have."""
    cells: tuple[ComparisonCell, ...]
    paper: Mapping[str, str] = field(default_factory=dict)
    """What the paper prints, by task, where it prints a number."""


@dataclass(frozen=True)
class ComparisonTable:
    """The table of section 4.3 to 5, a column a run."""

    names: tuple[str, ...]
    tasks: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]

    @property
    def header(self) -> list[str]:
        """The first line of `lines`; a run whose name does not say its task gets it in brackets."""
        runs = [name if task in name else f"{name} ({task})" for name, task in zip(self.names, self.tasks, strict=True)]
        return ["", "unit", *runs, "in the paper", "see"]

    def lines(self) -> list[list[str]]:
        """The table in plain text, all lines as long as `header`."""
        return [
            [row.name, row.unit, *(cell.text for cell in row.cells), _paper(row.paper), row.reference]
            for row in self.rows
        ]

    def to_json(self) -> dict[str, Any]:
        """As plain data: by row the values of each run, a list each; empty where there is none."""
        return {
            "runs": list(self.names),
            "rows": {row.key: [list(cell.values) for cell in row.cells] for row in self.rows},
        }

    def markdown(self) -> str:
        """The table for a page of documentation."""
        numbers = ["---:"] * len(self.names)
        table = [self.header, ["---", "---", *numbers, "---", "---"], *self.lines()]
        return "".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |\n" for line in table)


def compare_runs(findings: Sequence[Findings]) -> ComparisonTable:
    """The table of these runs, in their order. A run without weights or without a record leaves its cells empty."""
    rows = [
        ComparisonRow(
            quantity.key,
            quantity.name,
            quantity.unit,
            quantity.reference,
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
    return ComparisonCell(values, " / ".join(map(quantity.form.format, values)).replace("-", "−") or NOT_REACHED)


def _paper(printed: Mapping[str, str]) -> str:
    return ", ".join(f"{task} {value}" for task, value in printed.items())
