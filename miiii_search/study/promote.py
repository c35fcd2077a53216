"""Further seeds for the best configurations alone: `replicates.top`.

Every configuration is run once; when all have ended, the best get the other replicates. They are chosen by their first
runs, whatever further ones there are: after an extension a lucky second seed would count for more than a single one.
"""

from __future__ import annotations

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.study_attrs import SELECTED_KEY, SPEC_KEY
from miiii_search.study.points import read_points, without_known
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.study import Study
from miiii_search.study.trials import REPLICATE_KEY, insert_trials
from miiii_search.trial_queue.budget import exhausted_limit, read_usage
from miiii_search.trial_queue.counts import count_trials


def queue_further_seeds(study: Study) -> str | None:
    """Queues the other replicates of the best configurations if it is time to; says so in words, if it did.

    One transaction, under the study's lock, which also notes that it is done and how many trials there are since: done
    twice, by two coordinators or by one that was restarted, it is done once. Fewer than `replicates.top` get further
    seeds where fewer were completed, and `budget.trials` cuts what is too many. Nothing is queued while another part
    of the budget is spent. `extend` has it done again. Raises `MiiiiSearchError` if somebody deleted the study.
    """
    if not study.awaits_selection:
        return None
    with study.database.transaction() as connection:
        study.lock(connection)
        found = study_attrs.read(connection, study.study_id, SPEC_KEY, SELECTED_KEY)
        spec, counts = parse_spec(found[SPEC_KEY]), count_trials(connection, study.study_id)
        if spec.replicates.top is None or SELECTED_KEY in found:
            return None
        if any(counts[state] for state in (TrialState.WAITING, TrialState.RUNNING)):
            return None
        if spec.budget.has_limits and exhausted_limit(spec.budget, read_usage(connection, study.study_id)) is not None:
            return None
        known, n_trials = read_points(connection, study.study_id), sum(counts.values())
        best = _best_firsts(connection, study.study_id, spec.replicates.top)
        runs = [(known[row.trial_id][0], r) for r in range(1, spec.replicates.count) for row in best]
        missing = without_known(runs, known)
        if spec.budget.trials is not None:
            missing = missing[: max(spec.budget.trials - n_trials, 0)]
        if missing:
            insert_trials(connection, study.study_id, spec, missing, TrialState.WAITING)
        numbers = [row.number for row in best]
        selection = {"n_trials": n_trials + len(missing), "trials": numbers}
        study_attrs.write(connection, study.study_id, {SELECTED_KEY: selection})
    chosen = ", ".join(map(str, numbers)) or "none"
    return f"{len(missing)} trials with further seeds are queued, of the configurations of trials {chosen}"


def _best_firsts(connection: sa.Connection, study_id: int, n: int) -> list[sa.Row[tuple[int, int]]]:
    """(trial_id, number) of the best COMPLETE trials with the first seed, by their objective, then by their number."""
    trials, values, known = schema.trials, schema.trial_values, schema.trial_system_attributes
    is_first = sa.and_(known.c.trial_id == trials.c.trial_id, known.c.key == REPLICATE_KEY, known.c.value_json == "0")
    query = (
        sa.select(trials.c.trial_id, trials.c.number)
        .join(values, values.c.trial_id == trials.c.trial_id)
        .join(known, is_first)
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE)
        .order_by(values.c.value.desc(), trials.c.number)
        .limit(n)
    )
    return list(connection.execute(query))
