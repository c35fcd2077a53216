from .base import NopPruner, Pruner, PruningContext
from .factory import OptunaPruner, check_pruning, make_optuna_pruner, make_own_pruner, make_pruner
from .forecast import Forecast
from .history import History, history_at_rungs, history_of
from .peers import Peer, PeerReader
from .quantile import Quantile

__all__ = [
    "Forecast",
    "History",
    "NopPruner",
    "OptunaPruner",
    "Peer",
    "PeerReader",
    "Pruner",
    "PruningContext",
    "Quantile",
    "check_pruning",
    "history_at_rungs",
    "history_of",
    "make_optuna_pruner",
    "make_own_pruner",
    "make_pruner",
]
