"""Suggestions for misspelled names."""

from __future__ import annotations

import pytest

from miiii_search.config.suggestions import suggest


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("tep", ["tpe", "gp"], "; did you mean `tpe`?"),
        ("nothing like it", ["tpe", "gp"], "; one of tpe, gp"),
        ("nope", ["one"], "; the only one is `one`"),
    ],
)
def test_a_suggestion(name: str, known: list[str], text: str) -> None:
    assert suggest(name, known) == text
