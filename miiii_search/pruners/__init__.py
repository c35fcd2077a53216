"""Pruners: they decide which trials end early.

`Forecast`, the default, and `Quantile` are our own. `factory` chooses the pruner of a study, which may also be one of
Optuna's. `history` holds the part of a run that a pruner sees; `peers` reads the trials that a pruner compares with.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
