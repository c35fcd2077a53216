"""Revisions of studies, by which a reader notices that what it has cached of ended trials is out of date.

Optuna's cached storage, and optuna-dashboard on top of it, read an ended trial once and never again. A few of our
operations do rewrite the rows of ended trials: `extend` gives them the larger space, and `cleanup` removes their
links to artifacts. A deleted study is another case: SQLite gives its id, and those of its trials, to the next study.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.study_attrs import CREATED_KEY, REVISION_KEY

Revision = tuple[str | None, ...]


def renew_revision(connection: sa.Connection, study_id: int) -> None:
    """Gives the study another revision, in the transaction that rewrites rows of its ended trials or creates it."""
    study_attrs.write(connection, study_id, {REVISION_KEY: uuid.uuid4().hex})


def read_revisions(engine: sa.Engine) -> dict[int, Revision]:
    """Read the revision of every study in the database, by its id, in one statement.

    A study of an earlier version, or of another program, has no revision of its own. Its name, and when it was created
    or first run, tell it from another study with its id.
    """
    studies, first = schema.studies, schema.trials.alias("first_trial")

    def attribute(key: str) -> sa.ScalarSelect[str]:
        table = schema.study_system_attributes.alias()
        query = sa.select(table.c.value_json).where(table.c.study_id == studies.c.study_id, table.c.key == key)
        return query.scalar_subquery()

    revision, created = attribute(REVISION_KEY), attribute(CREATED_KEY)
    started = sa.select(first.c.datetime_start).where(first.c.study_id == studies.c.study_id, first.c.number == 0)
    # Only where it is needed: there is no index of trials by number.
    told = sa.func.coalesce(revision, created, sa.cast(started.scalar_subquery(), sa.Text))
    with engine.connect() as connection:
        rows = connection.execute(sa.select(studies.c.study_id, studies.c.study_name, told.label("told")))
        return {row.study_id: (row.study_name, row.told) for row in rows}
