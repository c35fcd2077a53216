"""The specification as a study's database holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from miiii_search.config.overrides import to_tree, validate
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import (
    MiiiiSearchError,
)
from miiii_search.storage import notes, study_attrs
from miiii_search.storage.study_attrs import (
    SPEC_KEY,
)


def parse_spec(tree: Mapping[str, Any]) -> StudySpec:
    """A spec as a study holds it. Raises `MiiiiSearchError` if it is of a format that this version does not read."""
    if tree.get("format") != 1:
        raise MiiiiSearchError(
            f"the study's spec has format {tree.get('format')}, this version of miiii-search reads format 1; "
            "use the version that created it"
        )
    return validate(StudySpec, tree, "the study's spec")


def write_spec(connection: sa.Connection, study_id: int, spec: StudySpec) -> None:
    """Stores the study's spec, and what a visitor of the dashboard reads of it, over what is there."""
    study_attrs.write(connection, study_id, {SPEC_KEY: to_tree(spec)})
    notes.rewrite(connection, study_id, notes.describe(spec))
