"""optuna-dashboard without stale caches: it starts anew when rows that it has cached were rewritten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna_dashboard import _importance
from sqlalchemy.exc import SQLAlchemyError

from miiii_search.storage.revisions import Revision, read_revisions

MakeApp = Callable[[BaseStorage], Any]


class CurrentDashboard:
    """Makes the dashboard's application, and makes it again when what it may have cached is out of date.

    The dashboard keeps ended trials in Optuna's cached storage, the union of the search space in its application, and
    importances in its module, none of which it ever reads again. A new application has a new storage; requests that
    are under way end with the old one.
    """

    def __init__(self, storage: BaseStorage, make: MakeApp) -> None:
        self._storage = storage
        self._make = make
        self._lock = threading.Lock()
        self._revisions: dict[int, Revision] = {}
        self._renew()

    def respond(self, respond: Callable[[Any], Any]) -> Any:
        """Calls `respond` with an application whose caches are current; asks the database in one statement."""
        self._refresh()
        app = self._app
        try:
            return respond(app)
        finally:
            if app is not self._app:  # it may have computed importances of rows that were rewritten meanwhile
                _forget_importances()

    def revision(self, study_id: int) -> str:
        """The revision of a study as of the latest request, for comparison."""
        return "/".join(map(str, self._revisions.get(study_id, ())))

    def _refresh(self) -> None:
        if not isinstance(self._storage, RDBStorage):
            return
        try:
            found = read_revisions(self._storage.engine)
        except SQLAlchemyError:  # the application says that the storage is down
            return
        with self._lock:
            stale = any(found.get(study_id) != known for study_id, known in self._revisions.items())
            if stale:
                self._renew()
            self._revisions = found

    def _renew(self) -> None:
        # The dashboard uses a storage object as it is, and a bare RDBStorage reads every trial again per refresh.
        self._app = self._make(optuna.storages.get_storage(self._storage))
        _forget_importances()


def _forget_importances() -> None:
    """Empties the dashboard's cache of importances, which knows a study by its id and its number of trials."""
    with _importance.param_importance_cache_lock:
        _importance.param_importance_cache.clear()
