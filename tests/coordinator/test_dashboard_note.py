"""The note on a study's page, as plain optuna-dashboard reads it."""

from __future__ import annotations

import re
import threading

import optuna_dashboard
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.study_sections import Budget
from miiii_search.coordinator.coordinator import supervise
from miiii_search.coordinator.dashboard_note import StudyNote
from miiii_search.storage import notes, schema
from miiii_search.storage import study_attrs as attributes
from miiii_search.storage.artifacts import Artifact, DatabaseArtifactStore
from miiii_search.storage.database import Database
from miiii_search.storage.study_attrs import PROGRAMS_KEY
from miiii_search.study.best_trials import best_trial, read_best
from miiii_search.study.create import create_study
from miiii_search.study.study import Study
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import TrialResult
from tests.support import SPACE, claim, end, everything, make_spec, read_back


@pytest.fixture
def study(database: Database) -> Study:
    return create_study(database, "it's a study", make_spec(budget=Budget(trials=6, solved=2)))


def read_note(study: Study) -> str:
    return str(optuna_dashboard.get_note(read_back(study)))


def test_it_follows_the_study(study: Study) -> None:
    note = StudyNote(study, seconds=0)
    note.refresh(done=False)
    text = read_note(study)
    assert (
        text.startswith("## Waiting for a worker\n\n6 waiting, 0 running, 0 complete, 0 pruned, 0 fail, of 6 trials.")
        and "No trial has been completed yet" in text
    )
    assert "at most 2 solved trials" in text and all(f"\n- {name}: " in text for name in SPACE)
    first, second, third = claim(study), claim(study), claim(study)
    note.refresh(done=False)
    assert read_note(study).startswith("## Running\n")
    end(study, first, value=0.25, epochs_to_solve=None)
    end(study, second, TrialState.PRUNED, 0.75)
    note.refresh(done=False)
    text = read_note(study)
    assert "\n3 waiting, 1 running, 1 complete, 1 pruned, 0 fail, of 6 trials." in text
    assert f"[Trial {first.number}]" in text and "reached a validation accuracy of 0.250" in text
    end(study, third, value=1.5, epochs_to_solve=1234)
    note.refresh(done=False)
    assert f"numbers={third.number}) solved every task at epoch 1,234 (dropout " in read_note(study)
    # The command for the export is one line, with any name.
    assert "\nmiiii-search best --study 'it'\"'\"'s a study' --out best.toml\n" in read_note(study)


def test_it_says_that_another_version_is_needed(study: Study) -> None:
    with study.database.transaction() as connection:
        attributes.write(connection, study.study_id, {PROGRAMS_KEY: [0]})
    study.refresh()
    note = StudyNote(study, seconds=0)
    note.refresh(done=False)
    assert read_note(study).startswith("## Waiting for another version\n\nstudy `it's a study` was created by")
    assert "MIIII_ANY_VERSION=1" in read_note(study)
    claim(study)  # by a worker of that version
    note.refresh(done=False)
    assert read_note(study).startswith("## Running\n")


def test_it_says_what_comes_next(database: Database) -> None:
    orders = {
        "grid_ei": "largest expected improvement",
        "grid": "in the order of their numbers",
        "tpe": "A sampler of Optuna chooses",
    }
    for sampler, words in orders.items():
        study = create_study(database, sampler, make_spec(sampler=sampler, budget=Budget(trials=6)))
        StudyNote(study, seconds=0).refresh(done=False)
        assert [words in read_note(study) for words in orders.values()] == [words == one for one in orders.values()]


def test_it_shows_the_best_one_s_curves(study: Study) -> None:
    lease = claim(study)
    files = [Artifact("record.npz", b"1"), Artifact("learning-curves.png", b"2")]
    outcome = TrialResult(TrialState.COMPLETE, 0.5, "ended.", {}, files)
    study.queue.finish(Heartbeat(lease, 1, 1.0), outcome)
    StudyNote(study).refresh(done=False)
    [picture] = re.findall(r"!\[[^]]+\]\((\S+)\)", read_note(study))
    prefix, _, artifact = picture.rpartition("/")
    assert prefix == f"/artifacts/{study.study_id}/{lease.trial_id}"
    assert DatabaseArtifactStore(study.database).open_reader(artifact).read() == b"2"


def test_it_says_how_the_study_ended(study: Study) -> None:
    for _ in range(2):
        end(study, claim(study), value=1.5, epochs_to_solve=8)
    assert supervise(study, threading.Event())
    note = read_note(study)
    assert note.startswith(
        "## Done: 2 trials are solved, as many as the budget asks for\n\n4 waiting, 0 running, 2 complete, "
    )
    assert re.search(r"\nLast changed \d{4}-\d\d-\d\d \d\d:\d\d UTC\.\n$", note)


def test_nothing_new_is_not_written(study: Study) -> None:
    note = StudyNote(study, seconds=0)
    note.refresh(done=False)
    before = everything(study.database)
    written: list[str] = []
    sa.event.listen(study.database.engine, "before_cursor_execute", lambda *args: written.append(args[2]))
    note.refresh(done=False)
    assert written and not [text for text in written if not text.startswith(("SELECT", "BEGIN"))]
    assert everything(study.database) == before


def test_it_looks_once_a_period_and_at_the_end(study: Study) -> None:
    note = StudyNote(study)
    note.refresh(done=False)
    asked: list[str] = []
    sa.event.listen(study.database.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    note.refresh(done=False)
    assert not asked
    note.refresh(done=True)
    assert read_note(study).startswith("## Done\n")


def test_an_edited_note_is_left_alone(study: Study) -> None:
    """Check notes that were edited by a request of the dashboard or by its function, or emptied."""
    for text in ("mine", ""):
        optuna_dashboard.save_note(read_back(study), text)
        for done in (False, True):
            StudyNote(study).refresh(done)
        assert read_note(study) == text


def test_a_note_that_is_being_edited_can_be_saved(study: Study) -> None:
    """Check that an update leaves the version, since the dashboard refuses an edit of an older version."""
    attributes = study.database.optuna.get_study_system_attrs(study.study_id)
    StudyNote(study).refresh(done=False)
    after = study.database.optuna.get_study_system_attrs(study.study_id)
    assert attributes["dashboard:note_ver"] == after["dashboard:note_ver"]


def test_a_shorter_note_leaves_nothing_of_the_longer_one(study: Study) -> None:
    trial = claim(study)
    end(study, trial)
    for length in (3 * notes.CHUNK_CHARACTERS, notes.CHUNK_CHARACTERS + 1, 5, 0, 2 * notes.CHUNK_CHARACTERS):
        with study.database.transaction() as connection:
            assert notes.rewrite(connection, study.study_id, "λ" * length)
        assert read_note(study) == "λ" * length
    with study.database.engine.connect() as connection:  # the trial's own note is a different one
        keys = connection.execute(sa.select(schema.study_system_attributes.c.key)).scalars()
        assert f"dashboard:{trial.trial_id}:note_str:0" in list(keys)


def test_the_best_is_that_of_the_export(study: Study) -> None:
    assert read_best(study) is None
    values = [(TrialState.COMPLETE, 0.5), (TrialState.PRUNED, 0.9), (TrialState.COMPLETE, 0.75)]
    for state, value in [*values, (TrialState.COMPLETE, 0.75), (TrialState.FAIL, None)]:
        end(study, claim(study), state, value)
    best = read_best(study)
    expected = best_trial(study.trials())
    assert best is not None and expected is not None
    assert (best.number, best.value, best.params) == (expected.number, 0.75, expected.params)
