"""Pausing a study: nobody claims its trials, workers hand back those that they train, and its clocks stand.

The pause is an attribute of the study. A claim looks at it in its own transaction, under the study's lock; workers,
coordinators and `status` look at it from time to time (`Study.refresh`).
"""

from __future__ import annotations

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import study_attrs
from miiii_search.storage.study_attrs import PAUSED_KEY, STARTED_KEY
from miiii_search.study.study import Study


def pause(study: Study) -> bool:
    """Pauses a study; False if it was paused already. From then on no trial of it is claimed.

    Raises `MiiiiSearchError` if it is done, or deleted.
    """
    if study.is_done():
        raise MiiiiSearchError(
            f"study `{study.name}` is done, there is nothing to pause; add trials with miiii-search extend --trials N"
        )
    with study.database.transaction() as connection:
        study.lock(connection)
        if study_attrs.read(connection, study.study_id, PAUSED_KEY):
            return False
        study_attrs.write(connection, study.study_id, {PAUSED_KEY: study_attrs.now(connection)})
    study.refresh()
    return True


def resume(study: Study) -> bool:
    """Lets a paused study go on; False if it was not paused. Its budget of wall time does not count the pause.

    Raises `MiiiiSearchError` if it was deleted.
    """
    with study.database.transaction() as connection:
        study.lock(connection)
        times = study_attrs.read(connection, study.study_id, PAUSED_KEY, STARTED_KEY)
        if PAUSED_KEY not in times:
            return False
        if STARTED_KEY in times:
            started, paused = times[STARTED_KEY], times[PAUSED_KEY]
            stood = study_attrs.now(connection) - max(started, paused)
            study_attrs.write(connection, study.study_id, {STARTED_KEY: started + max(stood, 0.0)})
        study_attrs.remove(connection, study.study_id, [PAUSED_KEY])
    study.refresh()
    return True
