"""Revisions of studies. A reader that caches ended trials compares them to notice that its cache is out of date.

Optuna's cached storage, and optuna-dashboard on top of it, read an ended trial once and never again. Some of our
operations rewrite rows of ended trials: `extend` stores the larger search space, and `cleanup` removes links to
artifacts. Deleting a study is another case: SQLite reuses its id and those of its trials for the next study.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.study_attrs import CREATED_KEY, REVISION_KEY

Revision = tuple[str | None, ...]
"""A value that is compared for equality and has no other meaning."""


def renew_revision(connection: sa.Connection, study_id: int) -> None:
    """Give the study another revision, in the transaction that creates it or rewrites rows of its ended trials."""
    study_attrs.write(connection, study_id, {REVISION_KEY: uuid.uuid4().hex})


def read_revisions(engine: sa.Engine) -> dict[int, Revision]:
    """Return the revision of every study in the database, by its id, in one statement.

    A study of an earlier version, or of another program, has no revision. It is distinguished from another study with
    the same id by its name and by the time at which it was created or first run.
    """
    studies, first = schema.studies, schema.trials.alias("first_trial")

    def attribute(key: str) -> sa.ScalarSelect[str]:
        table = schema.study_system_attributes.alias()
        query = sa.select(table.c.value_json).where(table.c.study_id == studies.c.study_id, table.c.key == key)
        return query.scalar_subquery()

    revision, created = attribute(REVISION_KEY), attribute(CREATED_KEY)
    started = sa.select(first.c.datetime_start).where(first.c.study_id == studies.c.study_id, first.c.number == 0)
    # The start comes last, because coalesce then evaluates it only where needed: trials have no index by number.
    identity = sa.func.coalesce(revision, created, sa.cast(started.scalar_subquery(), sa.Text))
    with engine.connect() as connection:
        rows = connection.execute(sa.select(studies.c.study_id, studies.c.study_name, identity.label("identity")))
        return {row.study_id: (row.study_name, row.identity) for row in rows}
