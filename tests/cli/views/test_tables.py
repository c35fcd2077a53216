"""Tables fit the width of the terminal, are complete in a file, and show names chosen by users literally."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from optuna.trial import TrialState
from rich.cells import cell_len
from rich.console import Console, RenderableType

from miiii_search.analysis.comparison import ComparisonCell, ComparisonRow, ComparisonTable
from miiii_search.cli.views.compare import comparison_table
from miiii_search.cli.views.console import FILE_WIDTH
from miiii_search.cli.views.rankings import ranking, seed_stats_table
from miiii_search.cli.views.studies import studies_table
from miiii_search.cli.views.study_status import pruned_table, status_view
from miiii_search.cli.views.tables import Column, FittedTable
from miiii_search.cli.views.training_progress import training_bar
from miiii_search.config.study_sections import Replicates
from miiii_search.storage.database import Database, open_database
from miiii_search.study.create import create_study
from miiii_search.study.overview import StudyOverview
from miiii_search.study.state import StudyState
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from miiii_search.study.trials import STATE_NAMES
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import TrialResult
from tests.support import SECONDS, claim, make_spec, metrics_of

LONG = "a study [b]with[/b] a :bug: and a name " + "much-too-long-for-a-line" * 6
WORKER = "a-machine-with-a-long-name.of-a-lab.example.org:1234567"
REASON = "the validation loss " + "would be down far too late, " * 6 + "at last"


def shown(renderable: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), markup=False, emoji=False)
    with console.capture() as captured:
        console.print(renderable)
    lines = captured.get().splitlines()
    assert max(map(cell_len, lines)) <= width
    return [line.rstrip() for line in lines]


@pytest.fixture
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """Yield a study with a long name, trials in all states, long reasons, and a worker with a long name."""
    database: Database = open_database(f"sqlite:///{tmp_path_factory.mktemp('s')}/t.db", create=True)
    study = create_study(database, LONG, make_spec(replicates=Replicates(count=2)))
    for k, state in enumerate((TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE)):
        lease = claim(study)
        study.queue.report([Heartbeat(lease, 8, 1.0)], {lease: {4: 0.25, 8: 0.5}}, SECONDS)
        known = {"metrics": metrics_of(study), "epochs_to_solve": 12 if k == 0 else None, "reason": REASON}
        outcome = TrialResult(
            state, None if state == TrialState.FAIL else 0.5, "ended.", {"epochs_trained": 16, **known}, []
        )
        study.queue.finish(Heartbeat(lease, 16, 1.0), outcome)
    lease = claim(study, worker=WORKER)
    study.queue.report([Heartbeat(lease, 8, 1234.5)], {lease: {4: 0.25}}, SECONDS)
    yield study
    database.close()


def test_a_study_at_any_width(study: Study) -> None:
    now = read_status(study)
    for width in (60, 80, 120, FILE_WIDTH):
        status = shown(status_view(now), width)
        text, joined = "\n".join(status), "".join(status)
        for words in ("4 of 48 trials", "43 waiting", "1 running", "2 complete", "1 pruned", "1 fail"):
            assert words in text
        assert LONG in joined or LONG.replace(" ", "") in joined.replace(" ", "")
        [running] = [line for line in status if "a-machine" in line]  # in one line
        assert running.split()[:2] == ["4", "8"]
        assert REASON.replace(" ", "") in "".join(shown(pruned_table(now), width)).replace(" ", "")
        best = shown(ranking(study), width)
        assert [line.split()[1:3] for line in best if line.split()[:1] == ["1"]] == [["0", "solved"]]
        assert shown(seed_stats_table(now.configurations), width)[1].split()[0] == "1/2"
    [running] = [line for line in shown(status_view(now), FILE_WIDTH) if WORKER in line]
    assert "dropout" in running and "…" not in running
    assert LONG in shown(status_view(now), FILE_WIDTH)[0]
    assert any(REASON in line for line in shown(pruned_table(now), FILE_WIDTH))


def test_the_list_at_any_width() -> None:
    now = datetime.now(UTC)
    counts = dict(zip(STATE_NAMES, (10000, 128, 3456, 4567, 12), strict=True))
    listed = [
        StudyOverview(LONG, StudyState.WAITING_FOR_COORDINATOR, counts, 18163, 1.98765, now),
        StudyOverview("short", StudyState.RUNNING, counts, 18163, None, None),
    ]
    storage = "postgresql://me:***@a-machine-with-a-long-name.of-a-lab.example.org/database"
    for width in (60, 80):
        lines = shown(studies_table(listed, storage), width)
        [row] = [line for line in lines if line.startswith("short")]
        assert "running" in row and "8035/18163" in row  # how many have ended, and of how many
        [head] = [k for k, line in enumerate(lines) if line.startswith("study ")]
        at = lines[head].index("state")  # the name goes on below itself
        assert LONG.replace(" ", "") in "".join(line[:at] for line in lines[head + 2 :]).replace(" ", "")
    whole = shown(studies_table(listed, storage), FILE_WIDTH)
    assert whole[0] == f"2 studies in {storage}" and len(whole) == 6
    [row] = [line for line in whole if line.startswith(LONG)]
    assert all(str(n) in row for n in (18163, *counts.values()))


def test_runs_side_by_side_at_any_width() -> None:
    names = tuple(f"runs/of-a-folder-with-a-long-name-{k}" for k in range(8))
    cells = tuple(ComparisonCell((1.0,), "1,234") for _ in names)
    rows = tuple(ComparisonRow(f"k{k}", f"quantity {k} with a long name", "epochs", "", cells) for k in range(3))
    comparison = ComparisonTable(names, ("nanda",) * len(names), rows)
    for width in (60, 80):
        lines = shown(comparison_table(comparison), width)
        assert sum(line.count("1,234") for line in lines) >= 6
    assert all(name in shown(comparison_table(comparison), FILE_WIDTH)[0] for name in names)


def test_columns_are_left_out_by_their_drop_order() -> None:
    table = FittedTable(
        [
            Column("kept", ["[b]x[/b]"]),
            Column("second", ["22"], drop_order=1),
            Column("first", ["333"], drop_order=2),
            Column("long", ["0123456789" * 3], shrink_to=5),
        ]
    )
    assert shown(table, 60)[1].split() == ["[b]x[/b]", "22", "333", "0123456789" * 3]
    # Gaps of two, and "second" and "first" are as wide as their names.
    assert shown(table, 32)[1].split() == ["[b]x[/b]", "22", "333", "012345…"]
    assert shown(table, 24)[1].split() == ["[b]x[/b]", "22", "01234…"]
    assert shown(table, 16)[1].split() == ["[b]x[/b]", "01234…"]


def test_a_long_run_s_progress_at_80_columns() -> None:
    """No text is cut, and a part of the bar is visible."""
    bar = training_bar()
    accuracy = "accuracy 0.999, validation 0.999"
    task = bar.add_task("training", total=65536, completed=65520, accuracy=accuracy)
    bar.tasks[task].start_time = bar.get_time() - 35_999
    [line] = shown(bar.get_renderable(), 80)
    assert "…" not in line and "━━━" in line
    assert all(part in line for part in ("65520/65536", accuracy, "9:59:59"))
