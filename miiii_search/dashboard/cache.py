"""optuna-dashboard without stale caches: its application is made again when cached rows were rewritten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna_dashboard import _importance

from miiii_search.storage.retry import is_database_error
from miiii_search.storage.revisions import Revision, read_revisions

MakeApp = Callable[[BaseStorage], Any]
"""Makes the dashboard's WSGI application for a storage."""


class CurrentDashboard:
    """The dashboard's application, which is made again when its caches are out of date.

    The dashboard caches three things and never reads them again: ended trials in Optuna's cached storage, the union of
    the search spaces in its application, and importances in its module. A new application has a new storage. Requests
    that have started end with the old one.

    Args:
        storage: The storage.
        make: Makes the application.
    """

    def __init__(self, storage: BaseStorage, make: MakeApp) -> None:
        self._storage = storage
        self._make = make
        self._lock = threading.Lock()
        self._revisions: dict[int, Revision] = {}
        self._renew()

    def respond(self, respond: Callable[[Any], Any]) -> Any:
        """Call `respond` with an application whose caches are current, and return its result.

        The database is asked with one statement.
        """
        self._refresh()
        app = self._app
        try:
            return respond(app)
        finally:
            if app is not self._app:  # importances may be those of rows that were rewritten meanwhile
                _forget_importances()

    def revision(self, study_id: int) -> str:
        """Return an identifier of a study's revision, as of the latest request."""
        return "/".join(map(str, self._revisions.get(study_id, ())))

    def _refresh(self) -> None:
        if not isinstance(self._storage, RDBStorage):
            return
        try:
            found = read_revisions(self._storage.engine)
        except Exception as error:
            if is_database_error(error):  # the application responds that the storage is down
                return
            raise
        with self._lock:
            stale = any(found.get(study_id) != known for study_id, known in self._revisions.items())
            if stale:
                self._renew()
            self._revisions = found

    def _renew(self) -> None:
        # get_storage adds a cache. Without it, the dashboard would read all trials at each request.
        self._app = self._make(optuna.storages.get_storage(self._storage))
        _forget_importances()


def _forget_importances() -> None:
    """Clear the dashboard's cache of importances, whose keys are a study's id and its number of trials."""
    with _importance.param_importance_cache_lock:
        _importance.param_importance_cache.clear()
