"""Notes, the Markdown that the dashboard shows on the page of a study or a trial."""

from __future__ import annotations

CHUNK = 2045
"""optuna-dashboard 0.21 cuts notes into system attributes of so many characters."""


def attributes(body: str, trial_id: int | None = None) -> dict[str, int | str]:
    """The attributes of the *study* that hold a note: its own, or a trial's."""
    prefix = "dashboard:note_" if trial_id is None else f"dashboard:{trial_id}:note_"
    chunks = [body[k : k + CHUNK] for k in range(0, len(body), CHUNK)]
    return {f"{prefix}ver": 1} | {f"{prefix}str:{k}": chunk for k, chunk in enumerate(chunks)}
