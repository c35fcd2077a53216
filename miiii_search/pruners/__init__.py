"""Pruners: they decide which trials end early.

`Forecast`, the default, and `Quantile` are our own. `factory` chooses the pruner of a study, which may also be one of
Optuna's. `history` holds the part of a run that a pruner sees; `peers` reads the trials that a pruner compares with.
"""

from miiii_search.pruners.base import NopPruner, Pruner, PruningContext
from miiii_search.pruners.forecast import Forecast
from miiii_search.pruners.history import History
from miiii_search.pruners.quantile import Quantile

__all__ = ["Forecast", "History", "NopPruner", "Pruner", "PruningContext", "Quantile"]
