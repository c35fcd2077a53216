"""The specification of a study as its database stores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from miiii_search.config.overrides import to_tree, validate
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import notes, study_attrs
from miiii_search.storage.study_attrs import SPEC_KEY


def parse_spec(tree: Mapping[str, Any]) -> StudySpec:
    """Return the specification that a study stores as plain data.

    Raises:
        MiiiiSearchError: This version does not read the format, or the data is not valid.
    """
    if tree.get("format") != 1:
        raise MiiiiSearchError(
            f"the study's spec has format {tree.get('format')}, this version of miiii-search reads format 1; "
            "use the version that created it"
        )
    return validate(StudySpec, tree, "the study's spec")


def write_spec(connection: sa.Connection, study_id: int, spec: StudySpec) -> None:
    """Replace the study's specification, and the note that describes it in the dashboard."""
    study_attrs.write(connection, study_id, {SPEC_KEY: to_tree(spec)})
    notes.rewrite(connection, study_id, notes.describe(spec))
