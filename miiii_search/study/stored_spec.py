"""The spec as a study's database stores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from miiii_search.config.overrides import to_tree, validate
from miiii_search.config.study_spec import FORMAT, StudySpec
from miiii_search.errors import InvalidSpecError, VersionMismatchError
from miiii_search.storage import notes
from miiii_search.storage.study_attrs import SPEC_KEY
from miiii_search.storage.study_transaction import StudyTransaction

if TYPE_CHECKING:
    from miiii_search.study.study import Study


def parse_spec(tree: Mapping[str, Any]) -> StudySpec:
    """Return the spec that a database stores, in this or an older format.

    Raises:
        VersionMismatchError: A newer version of miiii-search wrote it.
    """
    if tree.get("format") not in range(1, FORMAT + 1):
        raise VersionMismatchError(
            f"its spec has format {tree.get('format')}, and this version reads formats 1 to {FORMAT}; "
            "use a newer version of miiii-search"
        )
    try:
        return validate(StudySpec, tree, "its spec")
    except InvalidSpecError as error:
        raise VersionMismatchError(f"{error}; use a newer version of miiii-search") from None


def write_spec(tx: StudyTransaction, spec: StudySpec) -> None:
    """Store the study's spec and its description in the dashboard. Replaces what is stored."""
    tx.write_attributes({SPEC_KEY: to_tree(spec)})
    tx.rewrite_note(notes.describe(spec))


def upgrade_stored_spec(study: Study) -> bool:
    """Rewrite the study's spec in today's format, if an older version wrote it.

    The coordinator calls this when it begins to supervise the study. Commands that only read do not: workers of an
    older version cannot read the new format, and would stop training. It is one transaction, so the spec is either
    old or new, and a second call changes nothing.

    Returns:
        True if the spec was rewritten.

    Raises:
        StudyDeletedError: The study was deleted meanwhile.
    """
    with study.store.transaction() as tx:
        tx.lock()
        stored = tx.read_attributes(SPEC_KEY)[SPEC_KEY]
        if stored.get("format") == FORMAT:
            return False
        write_spec(tx, parse_spec(stored))
        return True
