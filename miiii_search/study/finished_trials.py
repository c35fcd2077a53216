"""The finished trials of a study, with only the fields that comparisons and tables need."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial

from miiii_search.storage.records import FinishedTrial
from miiii_search.study.study import Study


def finished_trials(trials: Iterable[FrozenTrial]) -> list[FinishedTrial]:
    """Return the finished ones of Optuna's trials."""
    return [
        FinishedTrial(t._trial_id, t.number, t.state, t.value, t.params, t.user_attrs.get("epochs_to_solve"))
        for t in trials
        if t.state.is_finished()
    ]


def read_varied_parameters(study: Study) -> list[str]:
    """Return the names of the search space that have more than one value among the finished trials."""
    n_values = study.store.count_parameter_values()
    return [name for name in study.spec.space if n_values.get(name, 0) > 1]
