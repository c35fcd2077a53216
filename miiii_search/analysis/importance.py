"""Importance of hyperparameters: the share of the objective's variance that each one, and each pair, explains.

The method is functional ANOVA (Hooker, 2007; Hutter, Hoos and Leyton-Brown, 2014). The objective is a function on the
grid. It is the sum of its mean, a main effect of each dimension, an interaction of each pair, and so on. These terms
are orthogonal, so their variances add up to the total variance.

If every cell of the grid has been tried, the result is exact: effects are differences of marginal means.

Otherwise the effects are not orthogonal and their shares are not unique. Cells are missing if trials failed, the budget
was not spent, a sampler chose the points, or the dimensions are ranges cut into bins. Main effects are then fitted by
least squares. The share of a dimension is the decrease of R² without it (type II sums of squares). So it counts only
what no other dimension can explain, and is zero for a dimension without effect. What several dimensions can explain
equally well is reported as shared. Shapley values (Lindeman, Merenda and Gold, 1980) would divide it among them, and
give a share to dimensions without effect. The share of a pair is the increase of R² over all main effects. On a
balanced complete grid both methods agree.

A conditional dimension varies only among the trials that use it, and its effect is fitted to them. Differences between
those trials and the others belong to the dimension on which it depends.

Optuna's evaluators are not used. Its fANOVA fits a random forest: it needs scikit-learn, depends on a seed, and has no
closed form to test against. PED-ANOVA explains what distinguishes the best tenth of the trials, which are only a few in
a study of dozens, and does not consider pairs. Both also leave out pruned trials, and thus the reasons for pruning
them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import f as f_distribution

Floats = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int_]]

LEVEL = 0.95
"""Confidence level of the F tests. One in twenty effects that do not exist appears significant."""

TRIALS_PER_PARAMETER = 2
"""Smallest number of trials per fitted parameter. With fewer, least squares fits noise."""

UNUSED = -1
"""Level of a trial in a conditional dimension that its run does not use."""

ROUNDING = 1e-9
"""Relative size below which a variance or a share is a rounding error."""


@dataclass(frozen=True)
class Effect:
    """Main effect of one dimension, or interaction of two dimensions."""

    names: tuple[str, ...]
    share: float
    """Share of the objective's variance, from 0 to 1."""
    chance_level: float
    """Share above which the effect is significant in an F test.

    The effect is tested against the variance that all main effects, and this interaction, leave unexplained. The test
    is exact for normal noise if the method is exact and all cells have the same number of replicates.
    """

    @property
    def is_significant(self) -> bool:
        """Whether the share exceeds the chance level."""
        return self.share > self.chance_level


@dataclass(frozen=True)
class Importance:
    """Decomposition of the objective's variance."""

    method: Literal["exact", "least squares", "none"]
    trials: int
    """Number of trials with an objective."""
    cells: int
    """Number of cells of the grid; 0 if the search space is not a grid."""
    cells_tried: int
    """Number of cells in which a trial has an objective."""
    terms: tuple[Effect, ...] = ()
    """Main effects, then interactions, each by descending share."""
    seed: float | None = None
    """Share of the differences between replicates of a cell; None if there are no replicates."""
    higher: float | None = None
    """Share of all interactions of three or more dimensions; exact method only.

    Without replicates it includes the differences between seeds.
    """
    shared: float | None = None
    """Share that several dimensions explain equally well; least squares only."""
    notes: tuple[str, ...] = ()
    """Messages about the limits of these results."""

    @property
    def most_important(self) -> str | None:
        """Name of the dimension with the largest share, or None if that share is not significant."""
        alone = [term for term in self.terms if len(term.names) == 1]
        return alone[0].names[0] if alone and alone[0].is_significant else None

    @property
    def in_words(self) -> str:
        """The result in one sentence."""
        significant = [f"{' × '.join(t.names)} ({100 * t.share:.0f} %)" for t in self.terms if t.is_significant]
        if not significant:
            return self.notes[0]
        if self.most_important is None:
            return f"no hyperparameter is significant alone, but together: {', '.join(significant)}"
        rest = f"; then {', '.join(significant[1:])}" if significant[1:] else ""
        share = 100 * self.terms[0].share
        return f"{self.most_important} explains {share:.0f} % of the variance of the objective{rest}"

    def with_notes(self, notes: Sequence[str]) -> Importance:
        """Return the same importance with additional notes."""
        return replace(self, notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        terms = [{"names": term.names, "share": term.share, "luck": term.chance_level} for term in self.terms]
        return asdict(self) | {"terms": terms, "decides": self.most_important, "in_words": self.in_words}


def functional_anova(
    names: Sequence[str], sizes: Sequence[int], points: Indices, values: Floats, is_grid: bool, cells: int | None = None
) -> Importance:
    """Decompose the variance of an objective.

    Args:
        names: Names of the dimensions.
        sizes: Number of levels of each dimension.
        points: Index of each trial's level in each dimension `[trials, dimensions]`, or `UNUSED`.
        values: The objective `[trials]`.
        is_grid: Whether levels are values and not bins, so that trials at the same point are replicates.
        cells: The number of points of the grid. By default the product of the sizes, as without conditional dimensions.

    Returns:
        The importance. If nothing can be said, it has no terms, and its notes give the reason.
    """
    count, is_conditional = len(values), bool((points == UNUSED).any())
    cells = (math.prod(sizes) if cells is None else cells) if is_grid else 0
    tried, cell = np.unique(np.column_stack([points, np.zeros(count, int)]), axis=0, return_inverse=True)
    cell, varied = cell.ravel(), [k for k in range(len(names)) if len(set(points[:, k]) - {UNUSED}) > 1]
    base = Importance("none", count, cells, len(tried) if is_grid else 0)
    if not count:
        return base.with_notes(["no trial has an objective yet, so the importance of the hyperparameters is unknown"])
    total = float(np.var(values))
    if total <= ROUNDING**2 * float(np.mean(values**2)):
        return base.with_notes([f"all {count} trials have the same objective, so no hyperparameter matters"])
    if not varied:
        return base.with_notes(["every hyperparameter has been tried at one value only, so nothing can be compared"])
    if is_grid and len(tried) == cells and not is_conditional:
        result = _exact(base, names, sizes, cell, values)
    else:
        result = _fitted(base, [names[k] for k in varied], points[:, varied], values)
        if result.terms and is_grid and len(tried) < count:
            within = values - (np.bincount(cell, values) / np.bincount(cell))[cell]
            result = replace(result, seed=float(np.mean(within**2)) / total)
    if result.terms and not any(term.is_significant for term in result.terms):
        notes = (f"no effect is significant with {count} trials", *result.notes)
        return replace(result, notes=notes)
    return result


def _exact(base: Importance, names: Sequence[str], sizes: Sequence[int], cell: Indices, values: Floats) -> Importance:
    """Decompose the variance of a grid with at least one trial in every cell.

    Args:
        base: The importance to complete.
        names: Names of the dimensions.
        sizes: Number of levels of each dimension.
        cell: Index of each trial's cell in the flattened grid `[trials]`.
        values: The objective `[trials]`.
    """
    per_cell = np.bincount(cell)
    means = (np.bincount(cell, values) / per_cell).reshape(sizes)
    scatter = np.bincount(cell, (values - means.ravel()[cell]) ** 2) / per_cell
    total = float(np.var(means) + np.mean(scatter))
    effects: dict[tuple[int, ...], Floats] = {}
    shares: dict[tuple[int, ...], tuple[float, int]] = {}
    for axes in [*_subsets(len(sizes), 1), *_subsets(len(sizes), 2)]:
        others = tuple(k for k in range(len(sizes)) if k not in axes)
        effect = means.mean(axis=others, keepdims=True) - means.mean()
        for axis in axes if len(axes) == 2 else ():
            effect = effect - effects[(axis,)]
        effects[axes] = effect
        freedom = math.prod(sizes[axis] - 1 for axis in axes)
        if freedom:
            shares[axes] = float(np.mean(effect**2)) / total, freedom
    alone = [shares[axes] for axes in shares if len(axes) == 1]
    terms = _terms(names, shares, sum(share for share, _ in alone), sum(freedom for _, freedom in alone), len(values))
    explained_share = sum(term.share for term in terms)
    has_replicates = len(values) > len(per_cell)
    seed = float(np.mean(scatter)) / total if has_replicates else None
    varied = sum(size > 1 for size in sizes)
    higher = max(1 - explained_share - (seed or 0.0), 0.0) if varied > 2 or not has_replicates else None
    return replace(base, method="exact", terms=terms, seed=seed, higher=higher)


def _fitted(base: Importance, names: Sequence[str], points: Indices, values: Floats) -> Importance:
    """Decompose the variance by least squares, for dimensions that have been tried at two or more levels."""
    centred = values - values.mean()
    blocks = [_indicators(points[:, k]) for k in range(len(names))]
    design = np.hstack(blocks)
    columns = np.split(np.arange(design.shape[1]), np.cumsum([block.shape[1] for block in blocks])[:-1])
    gram, moments, total = design.T @ design, design.T @ centred, float(centred @ centred)
    main, rank = _explained(gram, moments, np.arange(len(gram)))
    seen = f"{base.cells_tried} of the grid's {base.cells} points have"
    if not base.cells:
        seen = f"{len(values)} trials of ranges, cut into bins, have"
    note = f"{seen} an objective: shares are from a least-squares fit, not exact"
    if len(values) < TRIALS_PER_PARAMETER * (rank + 1):
        return base.with_notes([f"{len(values)} trials with an objective are too few for shares of {rank + 1} effects"])
    shares: dict[tuple[int, ...], tuple[float, int]] = {}
    for k in range(len(names)):
        others = np.concatenate([np.zeros(0, int), *(columns[i] for i in range(len(names)) if i != k)])
        without, rank_without = _explained(gram, moments, others)
        shares[(k,)] = (main - without) / total, rank - rank_without
    shared = max(main / total - sum(share for share, _ in shares.values()), 0.0)
    for i, j in _subsets(len(names), 2):
        shared_levels = points[:, (i, j)].copy()
        unused = (shared_levels == UNUSED).any(axis=1)
        shared_levels[unused] = UNUSED
        alone = (main, rank)
        if unused.any():  # among the trials that use both, either may have another effect than among all
            within = [design, *(_indicators(levels) for levels in shared_levels.T)]
            alone = _explained_by(np.hstack(within), centred)
        else:
            within = [design]
        pair = shared_levels[:, 0] * (shared_levels[:, 1].max() + 1) + shared_levels[:, 1]
        pair[unused] = UNUSED
        with_pair, rank_with_pair = _explained_by(np.hstack([*within, _indicators(pair)]), centred)
        freedom = rank_with_pair - alone[1]
        if freedom and len(values) >= TRIALS_PER_PARAMETER * (rank_with_pair + 1):
            shares[i, j] = (with_pair - alone[0]) / total, freedom
    terms = _terms(names, shares, main / total, rank, len(values))
    return replace(base, method="least squares", terms=terms, shared=shared).with_notes([note])


def _explained(gram: Floats, moments: Floats, chosen: Indices) -> tuple[float, int]:
    """Return the sum of squares that some columns of the design matrix explain, and the rank of these columns."""
    if not len(chosen):
        return 0.0, 0
    eigenvalues, vectors = np.linalg.eigh(gram[np.ix_(chosen, chosen)])
    kept = eigenvalues > 1e-9 * eigenvalues[-1]
    projected = vectors[:, kept].T @ moments[chosen]
    return float(np.sum(projected**2 / eigenvalues[kept])), int(kept.sum())


def _explained_by(design: Floats, centred: Floats) -> tuple[float, int]:
    """Return the sum of squares that all columns of a design matrix explain, and their rank."""
    return _explained(design.T @ design, design.T @ centred, np.arange(design.shape[1]))


def _indicators(levels: Indices) -> Floats:
    """Return centred indicator variables of the levels that occur `[trials, levels]`.

    They are centred over the trials that use the dimension, and 0 for all others. So they are orthogonal to the
    indicators of the dimension that decides whether this one is used.
    """
    used = levels != UNUSED
    columns = (levels[:, None] == np.unique(levels[used])).astype(float)
    centred: Floats = (columns - columns[used].mean(axis=0)) * used[:, None]
    return centred


def _terms(
    names: Sequence[str], shares: dict[tuple[int, ...], tuple[float, int]], main: float, rank: int, trials: int
) -> tuple[Effect, ...]:
    """Return effects with their chance levels, sorted.

    Args:
        names: Names of the dimensions.
        shares: Share and degrees of freedom of each effect, by the indices of its one or two dimensions.
        main: R² of all main effects.
        rank: Degrees of freedom of all main effects.
        trials: Number of trials.
    """
    terms = []
    for axes, (share, freedom) in shares.items():
        own = (share, freedom) if len(axes) == 2 else (0.0, 0)
        unexplained, left = max(1 - main - own[0], 0.0), trials - 1 - rank - own[1]
        chance_level = 1.0
        if freedom and left > 0:
            chance_level = min(freedom * float(f_distribution.ppf(LEVEL, freedom, left)) * unexplained / left, 1.0)
        terms.append(Effect(tuple(names[axis] for axis in axes), share if share > ROUNDING else 0.0, chance_level))
    return tuple(sorted(terms, key=lambda term: (len(term.names), -term.share)))


def _subsets(count: int, size: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(count), size))
