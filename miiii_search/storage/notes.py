"""Notes: the Markdown texts that the dashboard shows on the pages of studies and trials."""

from __future__ import annotations

import json

import sqlalchemy as sa

from miiii_search.config.conditional import conditional_dimensions, describe_condition
from miiii_search.config.search_space import Dimension, Range
from miiii_search.config.study_sections import Replicates
from miiii_search.config.study_spec import StudySpec
from miiii_search.storage import schema

CHUNK_CHARACTERS = 2045
"""optuna-dashboard 0.21 splits a note into system attributes of at most this many characters."""

OWN_VERSION = 1
"""Version of a note that this package wrote.

The dashboard raises it when a user edits the note. From then on, the note belongs to the user.
"""


def attributes(body: str, trial_id: int | None = None) -> dict[str, int | str]:
    """Return the system attributes of the study that hold a note, by key.

    Args:
        body: The note, in Markdown.
        trial_id: Optuna's id of the trial that the note belongs to; None for the note of the study itself.
    """
    prefix = "dashboard:note_" if trial_id is None else f"dashboard:{trial_id}:note_"
    chunks = [body[k : k + CHUNK_CHARACTERS] for k in range(0, len(body), CHUNK_CHARACTERS)]
    return {f"{prefix}ver": OWN_VERSION} | {f"{prefix}str:{k}": chunk for k, chunk in enumerate(chunks)}


def rewrite(connection: sa.Connection, study_id: int, body: str) -> bool:
    """Replace the note of a study, unless a user has edited it.

    The version of the note stays the same. Otherwise the dashboard would refuse what a user is typing at the moment.

    Returns:
        Whether the note was replaced.
    """
    stored = schema.study_system_attributes
    of_study = stored.c.study_id == study_id
    # The row is locked. An edit in the dashboard sets the version first, so it comes entirely before or after this.
    version = connection.execute(
        sa.select(stored.c.value_json).where(of_study, stored.c.key == "dashboard:note_ver").with_for_update()
    ).scalar_one_or_none()
    if version is not None and json.loads(version) != OWN_VERSION:
        return False
    note = attributes(body)
    rows = [{"study_id": study_id, "key": key, "value_json": json.dumps(value)} for key, value in note.items()]
    schema.upsert(connection, stored, rows, ("study_id", "key"))
    longer = sa.and_(stored.c.key.startswith("dashboard:note_str:", autoescape=True), stored.c.key.not_in(list(note)))
    connection.execute(sa.delete(stored).where(of_study, longer))
    return True


def describe(spec: StudySpec) -> str:
    """Return a description of a study in Markdown: its search space, its budget, and the meaning of trial values."""
    experiment, budget = spec.experiment, spec.budget
    limits = [
        (budget.solved, "solved trials"),
        (budget.device_hours, "device hours"),
        (budget.wall_hours, "hours since its first trial"),
    ]
    conditional = conditional_dimensions(spec.space)
    at_most = "".join(f", at most {limit:g} {what}" for limit, what in limits if limit is not None)
    return (
        f"Task `{experiment.task}` at p = {experiment.p}. Budget: {spec.n_trials} trials of up to "
        f"{experiment.epochs:,} epochs{at_most}.{_seeds(spec.replicates)} {_ORDERS.get(spec.sampler, _SAMPLED)} "
        "Searched over:\n\n"
        f"{''.join(_item(name, dimension, name in conditional) for name, dimension in spec.space.items())}\n"
        "The value of a trial is its mean validation accuracy while it is not solved, and 1 plus the share of "
        "epochs that it saved once every task has reached the target.\n"
    )


_ORDERS = {
    "grid_ei": "Trials with the largest expected improvement over the best result so far are trained first.",
    "grid": "Trials are trained in the order of their numbers, which is random.",
}
_SAMPLED = "A sampler of Optuna chooses each trial when a lane is free."


def _seeds(replicates: Replicates) -> str:
    if replicates.count == 1:
        return ""
    if replicates.top is None:
        return f" Each configuration is trained with {replicates.count} seeds."
    best = f"the {replicates.top} best are" if replicates.top > 1 else "the best is"
    return f" Each configuration is trained once, then {best} trained with {replicates.count} seeds in all."


def _item(name: str, dimension: Dimension, conditional: bool) -> str:
    only = f" (only with {describe_condition(name)})" if conditional else ""
    if isinstance(dimension, Range):
        return f"- {name}: {dimension.low} to {dimension.high}{', on a logarithmic scale' * dimension.log}{only}\n"
    return f"- {name}: {', '.join(map(str, dimension))}{only}\n"
