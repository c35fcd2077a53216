"""Further seeds for the best configurations only: `replicates.top`.

Every configuration is trained once. When all of these trials have ended, the best configurations get the other
replicates. Only first replicates are compared: after an extension, a configuration with several seeds would otherwise
profit from a lucky one.
"""

from __future__ import annotations

from optuna.trial import TrialState

from miiii_search.storage.study_attrs import SELECTED_KEY, SPEC_KEY
from miiii_search.study.points import exclude_existing
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
    with study.store.transaction() as tx:
        tx.lock()
        found = tx.read_attributes(SPEC_KEY, SELECTED_KEY)
        spec, counts = parse_spec(found[SPEC_KEY]), tx.count_trials()
        if spec.replicates.top is None or SELECTED_KEY in found:
            return None
        if counts[TrialState.WAITING] or counts[TrialState.RUNNING]:
            return None
        if spec.budget.has_limits and exhausted_limit(spec.budget, tx.read_usage()) is not None:
            return None
        existing, n_trials = tx.read_points(), sum(counts.values())
        best = tx.read_best_first_replicates(spec.replicates.top)
        wanted = [
            (existing[row.trial_id][0], replicate) for replicate in range(1, spec.replicates.count) for row in best
        ]
        missing = exclude_existing(wanted, existing)
        if spec.budget.trials is not None:
            missing = missing[: max(spec.budget.trials - n_trials, 0)]
        if missing:
            insert_trials(tx, spec, missing, TrialState.WAITING)
        numbers = [row.number for row in best]
        selection = {"n_trials": n_trials + len(missing), "trials": numbers}
        tx.write_attributes({SELECTED_KEY: selection})
    chosen = ", ".join(map(str, numbers)) or "none"
    return f"{len(missing)} trials with further seeds are queued, of the configurations of trials {chosen}"
