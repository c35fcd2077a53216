"""The report that compares several runs: its figures with their captions, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from miiii_search.analysis.comparison import ComparisonTable
from miiii_search.analysis.figures import comparison_training, comparison_weights
from miiii_search.analysis.figures.reference import LASTING_ACCURACY, compare_with_reference
from miiii_search.analysis.figures.style import escape_text
from miiii_search.analysis.findings import Findings
from miiii_search.analysis.reference import ReferenceCurves
from miiii_search.analysis.report.page import Page
from miiii_search.analysis.report.rendering import FigureSpec, FigureTemplate

SECTION = "Findings"

COMPARISON_FIGURES: tuple[FigureTemplate[Sequence[Findings]], ...] = (
    FigureTemplate(
        "compare-accuracy",
        SECTION,
        "Accuracy through training",
        "Fig. 6, 20",
        "Validation accuracy of every task, and the means over the scored tasks.",
        comparison_training.compare_accuracy,
    ),
    FigureTemplate(
        "compare-positions",
        SECTION,
        "Positional embeddings",
        "Fig. 8",
        "The embedding of the second position plotted against that of the first, one dot per dimension. r is Pearson's "
        "correlation.",
        comparison_weights.compare_positions,
    ),
    FigureTemplate(
        "compare-singular-values",
        SECTION,
        "Singular values of the token embedding",
        "Fig. 9",
        "The markers stand where the sum of squares reaches 50 % and 90 % of the total.",
        comparison_weights.compare_singular_values,
    ),
    FigureTemplate(
        "compare-embeddings",
        SECTION,
        "Frequencies of the token embedding",
        "Fig. 12 to 14",
        "The share of the embedding's energy at each frequency. Frequencies above the noise threshold are blue.",
        comparison_weights.compare_embeddings,
    ),
    FigureTemplate(
        "compare-neurons",
        SECTION,
        "Variance of the neurons at two frequencies",
        "Fig. 15, 16",
        "For each share of the variance: the percentage of neurons that have at least this share at their dominant "
        "frequencies.",
        comparison_weights.compare_neurons,
    ),
    FigureTemplate(
        "compare-activity",
        SECTION,
        "Frequencies of the neurons through training",
        "Fig. 17, 21, Table 3",
        "Mean activation of the frequencies of each digit, and the number of active frequencies.",
        comparison_training.compare_activity,
    ),
    FigureTemplate(
        "compare-attention",
        SECTION,
        "Attention from ŷ to x0",
        "Fig. 19",
        "Attention over all inputs. Each row is a run, each column a head.",
        comparison_weights.compare_attention,
    ),
)

COMPARISON_FIGURE_NAMES = [figure.name for figure in COMPARISON_FIGURES]

REFERENCE_FIGURE = "compare-reference"
"""Name of the figure that shows the reference; a comparison without a reference does not contain it."""


def comparison_figures(findings: Sequence[Findings], reference: ReferenceCurves | None = None) -> list[FigureSpec]:
    """Return the figures that compare several runs with one another, and with a reference if there is one."""
    findings = [replace(found, run=replace(found.run, name=escape_text(found.run.name))) for found in findings]
    figures = [figure.bind(findings) for figure in COMPARISON_FIGURES]
    if reference is not None:
        shown = replace(reference, name=escape_text(reference.name))
        caption = (
            "Upper panel: mean accuracies; the reference is grey. Lower panel: the epoch from which each task's "
            f"validation accuracy stays at or above {LASTING_ACCURACY}. Dots are the reference, crosses the runs."
        )
        draw = partial(compare_with_reference, findings, shown)
        figures.insert(
            0, FigureSpec(REFERENCE_FIGURE, SECTION, "Comparison with the reference", caption, "Fig. 6", draw)
        )
    return figures


def comparison_page(table: ComparisonTable, problems: Sequence[str], made_by: str) -> Page:
    """Return the page that compares several runs.

    Args:
        table: The quantities of all runs.
        problems: Messages about files, figures and missing data.
        made_by: The footer.
    """
    return Page(
        title="Comparison of runs",
        summary=f"{', '.join(table.names)}.",
        table=[],
        remarks=problems,
        made_by=made_by,
        grid=[table.header, *table.lines()],
    )
