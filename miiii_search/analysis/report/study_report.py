"""The report on a whole study: its figures with their captions, and its page."""

from __future__ import annotations

from miiii_search.analysis.figures.study_configurations import curves_by_configuration
from miiii_search.analysis.figures.study_curves import curves_by_level
from miiii_search.analysis.figures.study_importance import importance_bars
from miiii_search.analysis.figures.study_marginals import solved_share_bars
from miiii_search.analysis.figures.study_seeds import MAX_CONFIGURATIONS, epochs_to_solve_by_seed
from miiii_search.analysis.figures.study_solved import epochs_to_solve_heatmap
from miiii_search.analysis.figures.study_subsets import epochs_to_generalise_by_subset
from miiii_search.analysis.milestones import CONSECUTIVE_EVALUATIONS, LEARNED_ACCURACY
from miiii_search.analysis.report.page import Page
from miiii_search.analysis.report.rendering import FigureSpec, FigureTemplate
from miiii_search.analysis.study_summary import StudySummary

SECTION = "The study"

STUDY_FIGURES: tuple[FigureTemplate[StudySummary], ...] = (
    FigureTemplate(
        "study-curves",
        SECTION,
        "Learning curves of all trials",
        "",
        "Mean validation accuracy at the rungs. The panels are arranged by the two most important hyperparameters.",
        curves_by_level,
    ),
    FigureTemplate(
        "study-configurations",
        SECTION,
        "Learning curves by configuration",
        "",
        "The same curves, with one panel per configuration.",
        curves_by_configuration,
    ),
    FigureTemplate(
        "study-solved",
        SECTION,
        "Epochs to solve over the search space",
        "",
        "Grey cells were not solved. A cell with several trials shows the median over its solved trials.",
        epochs_to_solve_heatmap,
    ),
    FigureTemplate(
        "study-seeds",
        SECTION,
        "Differences between the seeds of a configuration",
        "",
        "Epochs to solve of every seed that has ended. Pruned and failed seeds count as not solved. The configurations "
        "are sorted by their median; the number of solved seeds and of all seeds stands on the right. Only the best "
        f"{MAX_CONFIGURATIONS} configurations with several seeds are shown.",
        epochs_to_solve_by_seed,
    ),
    FigureTemplate(
        "study-subsets",
        SECTION,
        "Epochs to generalise, alone and together",
        "",
        f"Epoch at which each task generalised: the first of {CONSECUTIVE_EVALUATIONS} evaluations in a row with "
        f"{LEARNED_ACCURACY:.0%} on the validation samples. The colour is the number of tasks that were trained "
        "together. A bar is a median, and a cross a run in which the task did not generalise.",
        epochs_to_generalise_by_subset,
    ),
    FigureTemplate(
        "study-importance",
        SECTION,
        "Importance of the hyperparameters",
        "",
        "Share of the objective's variance that each hyperparameter explains. A pair has the share that it explains "
        "in addition to its two hyperparameters alone.",
        importance_bars,
    ),
    FigureTemplate(
        "study-marginals",
        SECTION,
        "Solved trials by hyperparameter value",
        "",
        "Share of the ended trials that were solved. The numbers above the bars are solved and ended trials.",
        solved_share_bars,
    ),
)

STUDY_FIGURE_NAMES = [figure.name for figure in STUDY_FIGURES]


def study_figures(summary: StudySummary) -> list[FigureSpec]:
    """Return the figures of a whole study."""
    return [figure.bind(summary) for figure in STUDY_FIGURES]


def study_page(summary: StudySummary, made_by: str) -> Page:
    """Return the page of a whole study, with `made_by` as its footer."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary.counts.items() if count)
    importance = summary.importance
    rows = [
        (" × ".join(effect.names), f"{100 * effect.share:.1f} % of the variance")
        for effect in importance.terms
        if effect.is_significant
    ]
    rows += [
        ("best configuration over its seeds", spread.in_words) for spread in summary.seed_spreads[:1] if spread.median
    ]
    return Page(
        title=f"Study {summary.study}",
        summary=f"{len(summary.trials)} trials of up to {summary.epochs:,} epochs: {counts or 'no trial has started'}; "
        f"{importance.in_words}.",
        table=rows,
        remarks=[note for note in importance.notes if note != importance.in_words],
        made_by=made_by,
    )
