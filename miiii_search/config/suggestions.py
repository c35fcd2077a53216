"""Suggestions for misspelled names in error messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def suggest(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean …?` with the most similar known name, or a list of all if none is similar."""
    if close := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean `{close[0]}`?"
    return f"; the only one is `{known[0]}`" if len(known) == 1 else f"; one of {', '.join(known)}"
