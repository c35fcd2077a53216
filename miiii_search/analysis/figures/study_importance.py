"""What the trials of a study show together: all of its figures, and which hyperparameter decides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_configurations import curves_by_configuration
from miiii_search.analysis.figures.study_curves import curves_by_level
from miiii_search.analysis.figures.study_seeds import epochs_to_solve_by_seed
from miiii_search.analysis.figures.study_solved import epochs_to_solve_heatmap
from miiii_search.analysis.figures.study_style import display_name
from miiii_search.analysis.study_summary import StudySummary

MOST_PAIRS = 8


def importance_bars(summary: StudySummary) -> Figure | None:
    """The share of the objective's variance of each dimension, of the largest pairs, and of the rest.

    None where nothing can be said.
    """
    terms = summary.importance.terms
    if not terms:
        return None
    alone = [term for term in terms if len(term.names) == 1]
    pairs = [term for term in terms if len(term.names) == 2][:MOST_PAIRS]
    names = [" × ".join(map(display_name, term.names)) for term in [*alone, *pairs]]
    shares = [term.share for term in [*alone, *pairs]]
    colours = [style.OKABE_ITO[0]] * len(alone) + [style.OKABE_ITO[5]] * len(pairs)
    rest = [
        ("three or more" if summary.importance.seed is not None else "three or more, seed", summary.importance.higher),
        ("cannot be told apart", summary.importance.shared),
        ("seed", summary.importance.seed),
    ]
    for name, share in rest:
        if share is not None:
            names.append(name)
            shares.append(share)
            colours.append("0.7")
    figure = style.new_figure(style.COLUMN_WIDTH, 0.9 + 0.19 * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.barh(places, 100 * np.array(shares), color=colours, height=0.7)
    for row, term in enumerate([*alone, *pairs]):
        label = "an F test (5 %) calls more than this an effect" if row == 0 else None
        axes.plot([100 * term.chance_level] * 2, [row - 0.42, row + 0.42], color="black", linewidth=1.2, label=label)
    for row, share in enumerate(shares):
        axes.text(1.01, row, f"{100 * share:.1f}", va="center", fontsize=6, transform=axes.get_yaxis_transform())
    axes.set(yticks=places, yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axes.set_xlim(0, max([*(100 * s for s in shares), *(100 * t.chance_level for t in [*alone, *pairs])]) * 1.05)
    method = "" if summary.importance.method == "exact" else ", least squares"
    axes.set_xlabel(f"share of the variance (%{method})")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right")
    return figure


def solved_share_bars(summary: StudySummary) -> Figure | None:
    """For every dimension, the share of trials solved at each of its levels; None before a trial has ended."""
    varied = summary.dimensions_by_importance()
    if not varied or not any(trial.has_ended for trial in summary.trials):
        return None
    columns = min(len(varied), 3)
    rows = -(-len(varied) // columns)
    figure = style.new_figure(style.PAGE_WIDTH, 0.4 + 1.45 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for k, axes in enumerate(grid.flat):
        if k >= len(varied):
            axes.set_axis_off()
            continue
        marginals = summary.marginals[varied[k].name]
        places = np.arange(len(marginals))
        axes.bar(places, [100 * (m.solved_share or 0.0) for m in marginals], color=style.OKABE_ITO[0], width=0.7)
        for place, m in zip(places, marginals, strict=True):
            axes.text(place, 100 * (m.solved_share or 0.0) + 2, f"{m.solved}/{m.ended}", ha="center", fontsize=6)
        axes.set(
            xticks=places, xticklabels=[m.level for m in marginals], xlabel=display_name(varied[k].name), ylim=(0, 112)
        )
        axes.set_yticks([0, 50, 100])
        if len("".join(m.level for m in marginals)) > 24:
            axes.tick_params(axis="x", rotation=30)
    figure.supylabel("trials solved (%)", fontsize=8)
    return figure


FIGURES: dict[str, Callable[[StudySummary], Figure | None]] = {
    "study-curves": curves_by_level,
    "study-configurations": curves_by_configuration,
    "study-solved": epochs_to_solve_heatmap,
    "study-seeds": epochs_to_solve_by_seed,
    "study-importance": importance_bars,
    "study-marginals": solved_share_bars,
}
"""By the names of their files."""
