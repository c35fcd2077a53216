"""Further seeds for the best configurations only: `replicates.top`.

Every configuration is trained once. When all of these trials have ended, the best configurations get the other
replicates. Only first replicates are compared: after an extension, a configuration with several seeds would otherwise
profit from a lucky one.
"""

from __future__ import annotations

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.study_attrs import SELECTED_KEY, SPEC_KEY
from miiii_search.storage.trial_attrs import REPLICATE_KEY
from miiii_search.storage.trial_counts import count_trials
from miiii_search.storage.usage import read_usage
from miiii_search.study.best_trials import select_best_first
from miiii_search.study.points import exclude_existing, read_points
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.study import Study
from miiii_search.study.trials import insert_trials
from miiii_search.trial_queue.budget import exhausted_limit


def queue_further_seeds(study: Study) -> str | None:
    """Queue the other replicates of the best configurations once all first replicates have ended.

    The selection is stored in the same transaction, under the study's lock. So several coordinators, or one that was
    restarted, queue the replicates only once. `extend` removes the selection, so that it is made again.

    Fewer than `replicates.top` configurations get further seeds if fewer were completed. `budget.trials` limits the
    number of trials. Nothing is queued while another limit of the budget is reached.

    Returns:
        A sentence that says what was queued; None if nothing was to be done.

    Raises:
        StudyDeletedError: The study was deleted.
    """
    if not study.awaits_selection:
        return None
    with study.database.transaction() as connection:
        study.lock(connection)
        found = study_attrs.read(connection, study.study_id, SPEC_KEY, SELECTED_KEY)
        spec, counts = parse_spec(found[SPEC_KEY]), count_trials(connection, study.study_id)
        if spec.replicates.top is None or SELECTED_KEY in found:
            return None
        if counts[TrialState.WAITING] or counts[TrialState.RUNNING]:
            return None
        if spec.budget.has_limits and exhausted_limit(spec.budget, read_usage(connection, study.study_id)) is not None:
            return None
        existing, n_trials = read_points(connection, study.study_id), sum(counts.values())
        best = _read_best_first_replicates(connection, study.study_id, spec.replicates.top)
        wanted = [
            (existing[row.trial_id][0], replicate) for replicate in range(1, spec.replicates.count) for row in best
        ]
        missing = exclude_existing(wanted, existing)
        if spec.budget.trials is not None:
            missing = missing[: max(spec.budget.trials - n_trials, 0)]
        if missing:
            insert_trials(connection, study.study_id, spec, missing, TrialState.WAITING)
        numbers = [row.number for row in best]
        selection = {"n_trials": n_trials + len(missing), "trials": numbers}
        study_attrs.write(connection, study.study_id, {SELECTED_KEY: selection})
    chosen = ", ".join(map(str, numbers)) or "none"
    return f"{len(missing)} trials with further seeds are queued, of the configurations of trials {chosen}"


def _read_best_first_replicates(connection: sa.Connection, study_id: int, n: int) -> list[sa.Row[tuple[int, int]]]:
    """Return (trial_id, number) of the `n` best complete trials that are a first replicate, best first."""
    trials, attributes = schema.trials, schema.trial_system_attributes
    is_first_replicate = sa.and_(
        attributes.c.trial_id == trials.c.trial_id,
        attributes.c.key == REPLICATE_KEY,
        attributes.c.value_json == "0",
    )
    query = select_best_first(study_id, trials.c.trial_id, trials.c.number, complete=True)
    return list(connection.execute(query.join(attributes, is_first_replicate).limit(n)))
