"""Prints the rules of a trial's life as a diagram and a table, for the documentation.

    python -m miiii_search.worker.life_table

Both are made by asking `transition`, so they cannot differ from what the worker does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from miiii_search.worker import life_events as events
from miiii_search.worker.life_events import Event
from miiii_search.worker.trial_life import DUTIES_IN, FINAL, Phase, TrialLife, transition

EVENTS: tuple[Event, ...] = (
    events.Trained(has_reports=False),
    events.Trained(has_reports=True),
    events.TrainingEnded(by_itself=True),
    events.TrainingEnded(by_itself=False),
    events.StateReceived(),
    events.SuspensionBegun(),
    events.LaneFreed(),
    events.RanOutOfMemory(),
    events.ReportsWritten(has_rungs=False),
    events.ReportsWritten(has_rungs=True),
    events.PrunerDecided(None),
    events.PrunerDecided("…"),
    events.LeaseMissed(),
    events.LeaseLost(),
    events.CheckpointWritten(),
    events.ResultWritten("…"),
    events.ResultRefused("…"),
    events.Returned(),
    events.NotWritten(),
    events.StudyPaused(),
    events.WorkerStopping(),
    events.TrainersClosed(),
)
"""One event of each kind, and of each value on which a rule depends."""


@dataclass(frozen=True)
class Outcome:
    """The result of an event: the next phase, and the work that follows."""

    to: str
    """The next phase; empty if it stays the same."""
    actions: str
    """Work that the worker does once."""
    duties: str
    """Work that the worker then owes in addition. It tries at every turn until it is answered."""


def rules(phase: Phase) -> Iterator[tuple[str, Outcome]]:
    """Yield the events that change a trial in a phase, as the table shows them, and what they make of it."""
    # Rules depend on checkpoints in progress: on whether there are any, or whether the last one was written.
    numbers = (
        {1: "the last checkpoint", 2: "not the last"} if phase == Phase.SAVING else {0: "no checkpoint", 1: "some"}
    )
    kinds: dict[str, dict[str, Outcome | None]] = {}
    for event in EVENTS:
        outcomes = {words: _outcome(phase, event, saving) for saving, words in numbers.items()}
        is_same = len(set(outcomes.values())) == 1
        of_kind = kinds.setdefault(type(event).__name__, {})
        for words, outcome in outcomes.items():
            of_kind[_label(event) if is_same else f"{_label(event)}, {words} in progress"] = outcome
    for kind, outcomes_of_kind in kinds.items():
        found = set(outcomes_of_kind.values())
        merged = {f"`{kind}`": found.pop()} if len(found) == 1 else outcomes_of_kind
        yield from ((label, outcome) for label, outcome in merged.items() if outcome is not None)


def table() -> str:
    """Return the rules as a Markdown table."""
    lines = ["| in phase | event | to phase | does once | owes from then on |", "|---|---|---|---|---|"]
    for phase in Phase:
        name = f"**{phase.value}**"
        for label, outcome in rules(phase):
            lines.append(
                f"| {name} | {label} | {outcome.to} | {outcome.actions} | {outcome.duties} |".replace("  ", " ")
            )
            name = ""
    return "\n".join(lines)


def diagram() -> str:
    """Return the phases and the ways between them as a Mermaid diagram.

    Four events are left out, because they concern almost every phase: a lost lease, a pause, and the worker's end.
    """
    everywhere = (events.LeaseLost, events.WorkerStopping, events.TrainersClosed, events.NotWritten)
    ways: dict[tuple[Phase, Phase], list[str]] = {}
    for phase in Phase:
        for event in EVENTS:
            for saving in (0, 1):
                after = transition(TrialLife(phase, DUTIES_IN.get(phase, frozenset()), saving), event)[0].phase
                names = ways.setdefault((phase, after), [])
                name = type(event).__name__
                if after != phase and not isinstance(event, everywhere) and name not in names:
                    names.append(name)
    lines = ["stateDiagram-v2", "    [*] --> training"]
    lines += [f"    {a.value} --> {b.value}: {', '.join(names)}" for (a, b), names in ways.items() if names]
    lines += [f"    {phase.value} --> [*]" for phase in Phase if phase in FINAL and phase != Phase.ABANDONED]
    return "\n".join(["```mermaid", *lines, "```"])


def _outcome(phase: Phase, event: Event, saving: int) -> Outcome | None:
    """Return what an event makes of a trial with some checkpoints in progress, or None if it changes nothing."""
    reason = "…" if phase == Phase.STOPPING else None
    before = TrialLife(phase, saving=saving, prune_reason=reason)
    after, actions = transition(before, event)
    if after.phase == phase and not actions and after.duties == before.duties:
        return None
    to = after.phase.value if after.phase != phase else ""
    if reason and after.prune_reason is None:
        to += ", not pruned"
    duties = ", ".join(sorted(duty.value for duty in after.duties))
    return Outcome(to, ", ".join(action.value for action in actions), duties)


def _label(event: Event) -> str:
    """Return an event as the table shows it: its class, and the fields on which a rule depends."""
    match event:
        case events.PrunerDecided(reason):
            return f"`PrunerDecided(reason={'None' if reason is None else '…'})`"
        case events.ResultWritten() | events.ResultRefused():
            return f"`{type(event).__name__}`"
        case _:
            return f"`{repr(event).removesuffix('()')}`"


if __name__ == "__main__":
    print(f"{diagram()}\n\n{table()}")
