"""Samplers: they choose which point of the search space is trained next.

`GridEISampler` orders the waiting trials of a grid by expected improvement. `TrialSampler` creates new trials at points
drawn by one of Optuna's samplers, which `PointSampler` wraps.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
