"""Samplers: they choose which point of the search space is trained next.

`GridEISampler` orders the waiting trials of a grid by expected improvement. `TrialSampler` creates new trials at points
drawn by one of Optuna's samplers, which `PointSampler` wraps.
"""

from miiii_search.samplers.grid_ei import GridEISampler
from miiii_search.samplers.optuna_samplers import PointSampler, TrialSampler

__all__ = ["GridEISampler", "PointSampler", "TrialSampler"]
