"""The output of `status` as text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from miiii_search.cli.views import live
from miiii_search.cli.views.formatting import sparkline
from miiii_search.cli.views.rankings import ranking
from miiii_search.cli.views.studies import studies_table
from miiii_search.cli.views.study_status import headline, pruned_table, status_view
from miiii_search.storage.database import open_database
from miiii_search.storage.records import RunningTrial
from miiii_search.study.create import create_study
from miiii_search.study.overview import list_studies
from miiii_search.study.state import StudyState
from miiii_search.study.status import Status, read_status
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import TrialResult
from tests.support import claim, end, make_spec


def status(**fields: object) -> Status:
    running = [
        RunningTrial(3, "box:17", 2048, 80.0, 12.0, 1984, (0.0, 0.5, 0.25), {"dropout": 0.1}),
        RunningTrial(4, "box:18", 16, 80.0, 130.0, 0, (), {"dropout": 0.2}),
    ]
    values: dict[str, object] = {
        "study": "s",
        "counts": {"waiting": 1, "running": 2, "complete": 0, "pruned": 0, "fail": 0},
        "n_trials": 3,
        "epochs": 4096,
        "running": running,
        "best": None,
        "state": StudyState.RUNNING,
        "budget": {},
        "exhausted_limit": None,
    }
    return Status(**{**values, **fields})  # type: ignore[arg-type]


def text(shown: Status) -> list[str]:
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(status_view(shown))
    return captured.get().splitlines()


def test_every_running_trial_has_its_worker_lease_epoch_and_checkpoint() -> None:
    lines = text(status())
    [head] = [line for line in lines if "saved" in line]
    first, second = (next(line for line in lines if worker in line) for worker in ("box:17", "box:18"))
    for line, epoch, saved, heard in ((first, "2,048", "1,984", "12 s ago"), (second, "16", "", "2 min ago")):
        columns = {"epoch": epoch, "saved": saved, "heard": heard}
        for name, value in columns.items():  # right below its head: all three are flush right
            end = head.index(name) + len(name)
            assert line[:end].endswith(value) and line[end : end + 1] in ("", " ")


def test_why_trials_were_pruned(tmp_path: Path) -> None:
    """The view lists the last three; `--pruned` and the JSON output list all of them."""
    database = open_database(f"sqlite:///{tmp_path}/test.db", create=True)
    study = create_study(database, "s", make_spec())
    for k in range(5):
        lease = claim(study)
        attributes = {"reason": f"it looked [b]hopeless[/b] {k} times", "epochs_trained": 16 * (k + 1)}
        outcome = TrialResult(TrialState.PRUNED, 0.5, "pruned.", attributes, [])
        study.queue.finish(Heartbeat(lease, 16, 1.0), outcome)
    now = read_status(study)
    database.close()
    told = [line for line in text(now) if "hopeless" in line]
    assert [line.split()[:2] for line in told] == [["2", "48"], ["3", "64"], ["4", "80"]]
    assert "[b]hopeless[/b] 4 times" in told[-1]
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(pruned_table(now))
    assert sum("hopeless" in line for line in captured.get().splitlines()) == 5
    listed = now.to_json()["pruned"]
    assert [(one["number"], one["epoch"]) for one in listed] == [(k, 16 * (k + 1)) for k in range(5)]
    assert listed[0]["reason"] == "it looked [b]hopeless[/b] 0 times"


def test_budgets_are_shown() -> None:
    budget = {"solved": (1.0, 3.0), "device_hours": (0.5, 2.0)}
    assert headline(status(budget=budget)).endswith("1 of 3 solved · 0.5 of 2 device hours")
    over = status(
        budget=budget, state=StudyState.DONE, exhausted_limit="3 trials are solved, as many as the budget asks for"
    )
    assert headline(over).startswith("done: 3 trials are solved")


def test_a_sparkline_has_one_bar_per_value() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.5, 0.99, 1.0]) == "▁▅██"
    assert sparkline([-0.1, 1.5]) == "▁█"
    long = [k / 99 for k in range(100)]
    assert len(sparkline(long, 8)) == 8 and sparkline(long, 8) == "▁▂▃▄▅▆▇█"


def test_a_running_trial_has_its_curve() -> None:
    lines = text(status())
    assert sparkline((0.0, 0.5, 0.25)) in next(line for line in lines if "box:17" in line)


def test_the_progress_bar_has_a_mark_for_every_state_with_trials() -> None:
    counts = {"waiting": 380, "running": 1, "complete": 1, "pruned": 1, "fail": 1}
    shown = status(counts=counts, n_trials=384)
    [bar] = [line for line in text(shown) if "━" in line and "of 384 trials" in line]
    assert bar.count("━") == 36 and "3 of 384 trials" in bar


NAMED_LIKE_MARKUP = "grok[/bold] [red]"


def test_a_user_s_brackets_are_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_database(f"sqlite:///{tmp_path}/a.db", create=True)
    study = create_study(database, NAMED_LIKE_MARKUP, make_spec())
    end(study, claim(study))
    console = Console(width=300, file=io.StringIO())
    monkeypatch.setattr(live, "console", console)
    monkeypatch.setattr(live, "print_line", lambda line: console.print(line, soft_wrap=True, markup=False))
    monkeypatch.setattr(live, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(live, "headline", lambda status: status.study)
    with console.capture() as captured:
        console.print(ranking(study))
        console.print(studies_table(list_studies(database), "[/x]"))
        with live.live_view(study) as refresh:
            assert not refresh()
        console.print(status_view(read_status(study)))
    assert captured.get().count(NAMED_LIKE_MARKUP) == 6  # in two of them also in the command that starts a worker
    assert "[/x]" in captured.get()  # of the storage's folder
    database.close()
