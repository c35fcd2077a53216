"""Pruners: rules that end a trial early, and the history of a run that they decide on."""

from miiii_search.pruners.forecast import Forecast

__all__ = ["Forecast"]
