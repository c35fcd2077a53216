"""Which hyperparameter decides: the share of the objective's variance that each one, and each pair, explains.

Functional ANOVA (Hooker, 2007; Hutter, Hoos and Leyton-Brown, 2014): the objective as a function on the grid is the sum
of its mean, a main effect of every dimension, an interaction of every pair, and so on; these are orthogonal, so
that their variances add up to the whole.

Where every cell of the grid has been tried this is exact: effects are differences of marginal means. Where some
have not (trials failed, the budget was not spent, a sampler chose the points, or the dimensions are ranges cut into
bins) the effects are not orthogonal and their shares not unique. We then fit main effects by least squares, and a
dimension has what R² loses without it (sums of squares of type II): what no other dimension can account for, and
nothing where it does nothing. What several dimensions could account for equally well is told as shared. Shapley values
(Lindeman, Merenda and Gold, 1980) would divide that among them, and give a dimension that does nothing a part of it.
A pair has what it adds to R² after all main effects.
On a balanced complete grid both methods give the same. We prefer this to Optuna's evaluators: a random forest (its
fANOVA) needs scikit-learn, differs with its seed, and has no closed form to test against; PED-ANOVA tells what sets
the best tenth of the trials apart, which for a study of dozens is a handful, and knows no pairs. Both also leave out
the pruned trials, and with them what made them bad.
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
"""Of the F tests: of what does nothing, one in twenty still seems to do something."""

TRIALS_PER_PARAMETER = 2
"""With fewer, least squares fits the noise."""

ROUNDING = 1e-9
"""Relative; a variance or a share this small is none."""


@dataclass(frozen=True)
class Effect:
    """What one dimension alone, or two of them beyond what each does alone, explain."""

    names: tuple[str, ...]
    share: float
    """Of the variance of the objective, 0 to 1."""
    chance_level: float
    """The share above which an F test calls it more than chance. It is tested against what all dimensions alone, and
    this pair, leave unexplained; exact for normal noise, by the exact method if replicates are equally many."""

    @property
    def is_significant(self) -> bool:
        """Whether it is above chance."""
        return self.share > self.chance_level


@dataclass(frozen=True)
class Importance:
    """How the variance of the objective divides."""

    method: Literal["exact", "least squares", "none"]
    trials: int
    """With an objective."""
    cells: int
    """Of the grid; 0 where the space is none."""
    cells_tried: int
    terms: tuple[Effect, ...] = ()
    """Dimensions, then pairs, each by descending share."""
    seed: float | None = None
    """The share of what differs between replicates of a cell; None where there are none."""
    higher: float | None = None
    """The share of all interactions of three and more, and without replicates of the seed; exact method only."""
    shared: float | None = None
    """The share that several dimensions could account for equally well; least squares only."""
    notes: tuple[str, ...] = ()
    """What a reader must know to trust these, a line each."""

    @property
    def most_important(self) -> str | None:
        """The dimension of the largest share, if it is above chance."""
        alone = [term for term in self.terms if len(term.names) == 1]
        return alone[0].names[0] if alone and alone[0].is_significant else None

    @property
    def in_words(self) -> str:
        """The answer in a line: what decides, or why that cannot be said."""
        above = [f"{' × '.join(t.names)} ({100 * t.share:.0f} %)" for t in self.terms if t.is_significant]
        if self.most_important is None:
            return f"no hyperparameter decides alone; together: {', '.join(above)}" if above else self.notes[0]
        then = f"; then {', '.join(above[1:])}" if above[1:] else ""
        return (
            f"{self.most_important} decides: {100 * self.terms[0].share:.0f} % of the variance of the objective{then}"
        )

    def with_notes(self, notes: Sequence[str]) -> Importance:
        """The same, with more to say."""
        return replace(self, notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        terms = [{"names": term.names, "share": term.share, "luck": term.chance_level} for term in self.terms]
        return asdict(self) | {"terms": terms, "decides": self.most_important, "in_words": self.in_words}


def functional_anova(
    names: Sequence[str], sizes: Sequence[int], points: Indices, values: Floats, is_grid: bool
) -> Importance:
    """Divides the variance of `values` [trial] at `points` [trial, dimension], indices of levels below `sizes`.

    `is_grid`: levels are values, not bins, so that trials at the same point are replicates.
    """
    count, cells = len(values), math.prod(sizes) if is_grid else 0
    tried, cell = np.unique(np.column_stack([points, np.zeros(count, int)]), axis=0, return_inverse=True)
    cell, varied = cell.ravel(), [k for k in range(len(names)) if len(np.unique(points[:, k])) > 1]
    base = Importance("none", count, cells, len(tried) if is_grid else 0)
    if not count:
        return base.with_notes(["no trial has an objective, so nothing can be said about what decides"])
    total = float(np.var(values))
    if total <= ROUNDING**2 * float(np.mean(values**2)):
        return base.with_notes([f"all {count} trials came to the same objective, so nothing decides"])
    if not varied:
        return base.with_notes(["every dimension has been tried at one value only, so nothing can be compared"])
    if is_grid and len(tried) == cells:
        result = _exact(base, names, sizes, cell, values)
    else:
        result = _fitted(base, [names[k] for k in varied], points[:, varied], values)
        if result.terms and is_grid and len(tried) < count:
            within = values - (np.bincount(cell, values) / np.bincount(cell))[cell]
            result = replace(result, seed=float(np.mean(within**2)) / total)
    if result.terms and not any(term.is_significant for term in result.terms):
        notes = (f"nothing stands out from chance with {count} trials", *result.notes)
        return replace(result, notes=notes)
    return result


def _exact(base: Importance, names: Sequence[str], sizes: Sequence[int], cell: Indices, values: Floats) -> Importance:
    """Of a grid with a trial in every cell; `cell` [trial] counts them in the order of the grid."""
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
    told = sum(term.share for term in terms)
    has_replicates = len(values) > len(per_cell)
    seed = float(np.mean(scatter)) / total if has_replicates else None
    varied = sum(size > 1 for size in sizes)
    higher = max(1 - told - (seed or 0.0), 0.0) if varied > 2 or not has_replicates else None
    return replace(base, method="exact", terms=terms, seed=seed, higher=higher)


def _fitted(base: Importance, names: Sequence[str], points: Indices, values: Floats) -> Importance:
    """By least squares, of dimensions that have been tried at two levels at least."""
    centred = values - values.mean()
    blocks = [_indicators(points[:, k]) for k in range(len(names))]
    design = np.hstack(blocks)
    columns = np.split(np.arange(design.shape[1]), np.cumsum([block.shape[1] for block in blocks])[:-1])
    gram, moments, total = design.T @ design, design.T @ centred, float(centred @ centred)
    main, rank = _explained(gram, moments, np.arange(len(gram)))
    seen = f"{base.cells_tried} of the grid's {base.cells} points have"
    if not base.cells:
        seen = f"{len(values)} trials of ranges, cut into bins, have"
    note = f"{seen} an objective: shares are of a least-squares fit, not exact"
    if len(values) < TRIALS_PER_PARAMETER * (rank + 1):
        return base.with_notes([f"{len(values)} trials with an objective are too few for shares of {rank + 1} effects"])
    shares: dict[tuple[int, ...], tuple[float, int]] = {}
    for k in range(len(names)):
        others = np.concatenate([np.zeros(0, int), *(columns[i] for i in range(len(names)) if i != k)])
        without, rank_without = _explained(gram, moments, others)
        shares[(k,)] = (main - without) / total, rank - rank_without
    shared = max(main / total - sum(share for share, _ in shares.values()), 0.0)
    for i, j in _subsets(len(names), 2):
        both = np.hstack([design, _indicators(points[:, i] * (points[:, j].max() + 1) + points[:, j])])
        with_pair, rank_with_pair = _explained(both.T @ both, both.T @ centred, np.arange(both.shape[1]))
        freedom = rank_with_pair - rank
        if freedom and len(values) >= TRIALS_PER_PARAMETER * (rank_with_pair + 1):
            shares[i, j] = (with_pair - main) / total, freedom
    terms = _terms(names, shares, main / total, rank, len(values))
    return replace(base, method="least squares", terms=terms, shared=shared).with_notes([note])


def _explained(gram: Floats, moments: Floats, chosen: Indices) -> tuple[float, int]:
    """The sum of squares that the chosen columns of the design explain, and their rank."""
    if not len(chosen):
        return 0.0, 0
    eigenvalues, vectors = np.linalg.eigh(gram[np.ix_(chosen, chosen)])
    kept = eigenvalues > 1e-9 * eigenvalues[-1]
    projected = vectors[:, kept].T @ moments[chosen]
    return float(np.sum(projected**2 / eigenvalues[kept])), int(kept.sum())


def _indicators(levels: Indices) -> Floats:
    """A column a level that occurs, centred: [trial, level]."""
    columns = (levels[:, None] == np.unique(levels)).astype(float)
    centred: Floats = columns - columns.mean(axis=0)
    return centred


def _terms(
    names: Sequence[str], shares: dict[tuple[int, ...], tuple[float, int]], main: float, rank: int, trials: int
) -> tuple[Effect, ...]:
    """Of shares and degrees of freedom by the indices of one or two dimensions; `main` is R² without pairs."""
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
