"""Notes, the Markdown that the dashboard shows on the page of a study or a trial."""

from __future__ import annotations

import json

import sqlalchemy as sa

from miiii_search.config.search_space import Dimension, Range
from miiii_search.config.study_sections import Replicates
from miiii_search.config.study_spec import StudySpec
from miiii_search.storage import schema

CHUNK = 2045
"""optuna-dashboard 0.21 cuts notes into system attributes of so many characters."""

OURS = 1
"""The version of a note of ours. The dashboard counts on from it when somebody edits the note, who then owns it."""


def attributes(body: str, trial_id: int | None = None) -> dict[str, int | str]:
    """The attributes of the *study* that hold a note: its own, or a trial's."""
    prefix = "dashboard:note_" if trial_id is None else f"dashboard:{trial_id}:note_"
    chunks = [body[k : k + CHUNK] for k in range(0, len(body), CHUNK)]
    return {f"{prefix}ver": OURS} | {f"{prefix}str:{k}": chunk for k, chunk in enumerate(chunks)}


def rewrite(connection: sa.Connection, study_id: int, body: str) -> bool:
    """Replaces a study's own note; False, and nothing is written, if somebody has edited it.

    The version stays, so that the dashboard does not refuse what is being typed into it meanwhile.
    """
    stored = schema.study_system_attributes
    of_study = stored.c.study_id == study_id
    # Locked: whoever edits the note sets its version first, and comes before us or after us as a whole.
    version = connection.execute(
        sa.select(stored.c.value_json).where(of_study, stored.c.key == "dashboard:note_ver").with_for_update()
    ).scalar_one_or_none()
    if version is not None and json.loads(version) != OURS:
        return False
    note = attributes(body)
    rows = [{"study_id": study_id, "key": key, "value_json": json.dumps(value)} for key, value in note.items()]
    schema.upsert(connection, stored, rows, ("study_id", "key"))
    longer = sa.and_(stored.c.key.startswith("dashboard:note_str:", autoescape=True), stored.c.key.not_in(list(note)))
    connection.execute(sa.delete(stored).where(of_study, longer))
    return True


def describe(spec: StudySpec) -> str:
    """What a study searches over, for how long, and what its trials' values mean."""
    experiment, budget = spec.experiment, spec.budget
    limits = [
        (budget.solved, "solved trials"),
        (budget.device_hours, "device hours"),
        (budget.wall_hours, "hours since its first trial"),
    ]
    at_most = "".join(f", at most {limit:g} {what}" for limit, what in limits if limit is not None)
    return (
        f"Task `{experiment.task}` at p = {experiment.p}. Budget: {spec.n_trials} trials of up to "
        f"{experiment.epochs:,} epochs{at_most}.{_seeds(spec.replicates)} {_ORDERS.get(spec.sampler, _SAMPLED)} "
        "Searched over:\n\n"
        f"{''.join(_item(name, dimension) for name, dimension in spec.space.items())}\n"
        "The value of a trial is its mean validation accuracy while it is not solved, and 1 plus the share of "
        "epochs that it saved once every task is at the target.\n"
    )


_ORDERS = {
    "model": "What may improve most on the best result so far is trained first.",
    "queue": "Trials are trained in the order of their numbers, which was shuffled.",
}
_SAMPLED = "A sampler of Optuna's chooses each trial when a lane is free."


def _seeds(replicates: Replicates) -> str:
    if replicates.count == 1:
        return ""
    if replicates.top is None:
        return f" Each configuration is trained with {replicates.count} seeds."
    best = f"the {replicates.top} best are" if replicates.top > 1 else "the best is"
    return f" Each configuration is trained once, then {best} trained with {replicates.count} seeds in all."


def _item(name: str, dimension: Dimension) -> str:
    if isinstance(dimension, Range):
        return f"- {name}: {dimension.low} to {dimension.high}{', by its logarithm' * dimension.log}\n"
    return f"- {name}: {', '.join(map(str, dimension))}\n"
