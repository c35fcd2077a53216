"""What the trials of a study show together: all of its figures, and which hyperparameter decides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.outcomes import name_of
from miiii_search.analysis.figures.study_curves import curves_by_level
from miiii_search.analysis.figures.study_map import solved_map
from miiii_search.analysis.figures.study_sheet import curves_by_configuration
from miiii_search.analysis.figures.study_spread import seeds_spread
from miiii_search.analysis.survey import Survey

MOST_PAIRS = 8


def importance_bars(survey: Survey) -> Figure | None:
    """The share of the objective's variance of each dimension, of the largest pairs, and of the rest.

    None where nothing can be said.
    """
    terms = survey.importance.terms
    if not terms:
        return None
    alone = [term for term in terms if len(term.names) == 1]
    pairs = [term for term in terms if len(term.names) == 2][:MOST_PAIRS]
    names = [" × ".join(map(name_of, term.names)) for term in [*alone, *pairs]]
    shares = [term.share for term in [*alone, *pairs]]
    colours = [style.OKABE_ITO[0]] * len(alone) + [style.OKABE_ITO[5]] * len(pairs)
    rest = [
        ("three or more" if survey.importance.seed is not None else "three or more, seed", survey.importance.higher),
        ("cannot be told apart", survey.importance.shared),
        ("seed", survey.importance.seed),
    ]
    for name, share in rest:
        if share is not None:
            names.append(name)
            shares.append(share)
            colours.append("0.7")
    figure = style.new_figure(style.COLUMN, 0.9 + 0.19 * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.barh(places, 100 * np.array(shares), color=colours, height=0.7)
    for row, term in enumerate([*alone, *pairs]):
        label = "an F test (5 %) calls more than this an effect" if row == 0 else None
        axes.plot([100 * term.luck] * 2, [row - 0.42, row + 0.42], color="black", linewidth=1.2, label=label)
    for row, share in enumerate(shares):
        axes.text(1.01, row, f"{100 * share:.1f}", va="center", fontsize=6, transform=axes.get_yaxis_transform())
    axes.set(yticks=places, yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axes.set_xlim(0, max([*(100 * s for s in shares), *(100 * t.luck for t in [*alone, *pairs])]) * 1.05)
    method = "" if survey.importance.method == "exact" else ", least squares"
    axes.set_xlabel(f"share of the variance (%{method})")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right")
    return figure


def marginal_figure(survey: Survey) -> Figure | None:
    """For every dimension, the share of trials solved at each of its levels; None before a trial has ended."""
    varied = survey.by_importance()
    if not varied or not any(trial.has_ended for trial in survey.trials):
        return None
    columns = min(len(varied), 3)
    rows = -(-len(varied) // columns)
    figure = style.new_figure(style.PAGE, 0.4 + 1.45 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for k, axes in enumerate(grid.flat):
        if k >= len(varied):
            axes.set_axis_off()
            continue
        marginals = survey.marginals[varied[k].name]
        places = np.arange(len(marginals))
        axes.bar(places, [100 * (m.solved_share or 0.0) for m in marginals], color=style.OKABE_ITO[0], width=0.7)
        for place, m in zip(places, marginals, strict=True):
            axes.text(place, 100 * (m.solved_share or 0.0) + 2, f"{m.solved}/{m.ended}", ha="center", fontsize=6)
        axes.set(xticks=places, xticklabels=[m.level for m in marginals], xlabel=name_of(varied[k].name), ylim=(0, 112))
        axes.set_yticks([0, 50, 100])
        if len("".join(m.level for m in marginals)) > 24:
            axes.tick_params(axis="x", rotation=30)
    figure.supylabel("trials solved (%)", fontsize=8)
    return figure


FIGURES: dict[str, Callable[[Survey], Figure | None]] = {
    "study-curves": curves_by_level,
    "study-configurations": curves_by_configuration,
    "study-solved": solved_map,
    "study-seeds": seeds_spread,
    "study-importance": importance_bars,
    "study-marginals": marginal_figure,
}
"""By the names of their files."""
