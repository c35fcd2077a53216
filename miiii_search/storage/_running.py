"""The running trials of a study: which worker trains each of them, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.storage import schema
from miiii_search.storage.records import DETAILED_TRIALS, RunningTrial


def read_running_trials(
    connection: sa.Connection, study_id: int, read_trials: Callable[[Collection[int]], Mapping[int, FrozenTrial]]
) -> tuple[list[RunningTrial], bool]:
    """Read the running trials that are leased.

    Args:
        connection: A connection to the database.
        study_id: The study.
        read_trials: Reads trials by their ids.

    Returns:
        The trials ordered by number, and whether any of their leases is still valid.
    """
    leases, trials = schema.leases, schema.trials
    now = schema.now(connection)
    query = (
        sa.select(
            leases,
            trials.c.number,
            (now - leases.c.renewed_at).label("silent"),
            (leases.c.expires_at > now).label("is_valid"),
        )
        .join(trials, trials.c.trial_id == leases.c.trial_id)
        .where(leases.c.study_id == study_id, trials.c.state == TrialState.RUNNING)
        .order_by(trials.c.number)
    )
    rows = connection.execute(query).all()
    detailed = read_trials([row.trial_id for row in rows[:DETAILED_TRIALS]]) if rows else {}
    running = []
    for row in rows:
        trial = detailed.get(row.trial_id)
        reports = trial.intermediate_values if trial else {}
        running.append(
            RunningTrial(
                number=row.number,
                worker=row.worker,
                epoch=row.epoch,
                epochs_per_second=row.epochs_per_second,
                silent_seconds=max(row.silent, 0.0),
                saved_epoch=row.saved_epoch,
                curve=tuple(reports[epoch] for epoch in sorted(reports)),
                params=trial.params if trial else {},
            )
        )
    return running, any(row.is_valid for row in rows)
