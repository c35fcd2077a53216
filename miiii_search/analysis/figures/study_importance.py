"""Figure of the hyperparameters' importance in a study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from miiii_search.analysis.figures import style
from miiii_search.analysis.figures.study_style import display_name
from miiii_search.analysis.importance import Effect, Importance
from miiii_search.analysis.study_summary import StudySummary

MAX_PAIRS = 8
"""Number of pairs of hyperparameters shown, those with the largest shares."""

PAIR_COLOUR, REST_COLOUR = style.OKABE_ITO[5], "0.7"


def importance_bars(summary: StudySummary) -> Figure | None:
    """Draw the share of the objective's variance of each dimension, of the largest pairs, and of the rest.

    Returns None if the importance could not be determined.
    """
    importance = summary.importance
    if not importance.terms:
        return None
    single = [effect for effect in importance.terms if len(effect.names) == 1]
    pairs = [effect for effect in importance.terms if len(effect.names) == 2][:MAX_PAIRS]
    effects = [*single, *pairs]
    rest = _rest(importance)
    names = [*(" × ".join(map(display_name, effect.names)) for effect in effects), *(name for name, _ in rest)]
    shares = [*(effect.share for effect in effects), *(share for _, share in rest)]
    colours = [style.OKABE_ITO[0]] * len(single) + [PAIR_COLOUR] * len(pairs) + [REST_COLOUR] * len(rest)
    figure = style.new_figure(style.COLUMN_WIDTH, 0.9 + 0.19 * len(names))
    axes = figure.subplots()
    rows = np.arange(len(names))
    axes.barh(rows, 100 * np.array(shares), color=colours, height=0.7)
    for row, effect in enumerate(effects):
        label = "threshold of the F test (5 %)" if row == 0 else None
        threshold = 100 * effect.chance_level
        axes.plot([threshold, threshold], [row - 0.42, row + 0.42], color="black", linewidth=1.2, label=label)
    for row, share in enumerate(shares):
        axes.text(1.01, row, f"{100 * share:.1f}", va="center", fontsize=6, transform=axes.get_yaxis_transform())
    axes.set(yticks=rows, yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axes.set_xlim(0, 1.05 * _largest(shares, effects))
    method = "" if importance.method == "exact" else ", least squares"
    axes.set_xlabel(f"share of the variance (%{method})")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right")
    return figure


def _rest(importance: Importance) -> list[tuple[str, float]]:
    """Return the labels and shares of the variance that no dimension and no pair explains."""
    higher = "three or more" if importance.seed is not None else "three or more, seed"
    shares = [(higher, importance.higher), ("shared by several", importance.shared), ("seed", importance.seed)]
    return [(name, share) for name, share in shares if share is not None]


def _largest(shares: Sequence[float], effects: Sequence[Effect]) -> float:
    """Return the largest share or threshold, in percent."""
    return 100 * max(*shares, *(effect.chance_level for effect in effects))
