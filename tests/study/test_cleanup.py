"""Cleanup removes the artifacts and weights of all trials except the best, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.artifacts import get_all_artifact_meta

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.artifacts import DatabaseArtifactStore
from miiii_search.storage.database import Database
from miiii_search.study.best_trials import sort_best_first
from miiii_search.study.cleanup import CleanupResult, cleanup, old_snapshots, remove_snapshots
from miiii_search.study.create import create_study
from miiii_search.study.snapshots import study_folder, trial_folder
from miiii_search.study.study import Study
from tests.support import everything, make_spec, read_back, with_all


def files(study: Study) -> dict[int, list[str]]:
    """Return the artifact names of each trial that has artifacts, after checking that each can be read."""
    store, found = DatabaseArtifactStore(study.database), {}
    for trial in read_back(study).trials:
        metas = get_all_artifact_meta(trial, storage=study.database.optuna)
        assert all(store.open_reader(meta.artifact_id).read() for meta in metas)
        if metas:
            found[trial.number] = [meta.filename for meta in metas]
    return found


def test_the_best_are_kept(database: Database) -> None:
    study, other = create_study(database, "study", make_spec()), create_study(database, "other", make_spec())
    with_all(study)
    with_all(other)
    assert files(study) == {0: ["curves.png"], 1: ["curves.png"]}  # complete, and pruned
    assert [t.number for t in sort_best_first(read_back(study).trials)][:2] == [0, 1]
    before = everything(database)
    found = {"trials": 2, "artifacts": 2, "size": 2500}  # including the attachment of a failed trial
    assert cleanup(study, 1, dry_run=True) == CleanupResult(**found)
    assert everything(database) == before
    assert cleanup(study, 1) == CleanupResult(**found)
    assert cleanup(study, 1) == CleanupResult(0, 0, 0)
    assert files(study) == {0: ["curves.png"]} and len(files(other)) == 2
    after = everything(database)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"miiii_artifacts", "study_system_attributes", "trial_system_attributes"}
    assert read_back(study).trials[1].user_attrs["metrics"]
    assert cleanup(study, 0).artifacts == 1 and files(study) == {}


def test_the_best_trials_weights_are_kept(database: Database, tmp_path: Path) -> None:
    """Files that other studies or the user put beside the snapshots are kept too."""
    study = create_study(database, "study", make_spec())
    with_all(study)
    ended = {trial.number for trial in read_back(study).trials if trial.state.is_finished()}
    running = next(trial.number for trial in read_back(study).trials if not trial.state.is_finished())
    folder = study_folder(tmp_path, study)
    for number in (*ended, running):
        trial_folder(tmp_path, study, number).mkdir(parents=True)
        (folder / f"trial-{number}" / "epoch-256.npz").write_bytes(b"weights")
    (folder / "trial-1" / "mine.txt").write_text("mine")
    (folder / "epoch-256.npz").write_bytes(b"another's")
    old = old_snapshots(study, tmp_path, 1)
    assert {path.parent.name for path in old} == {f"trial-{number}" for number in ended - {0}}
    remove_snapshots(old)
    assert old_snapshots(study, tmp_path, 1) == []
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    running_s = f"trial-{running}/epoch-256.npz"
    assert kept == {"trial-0/epoch-256.npz", running_s, "trial-1/mine.txt", "epoch-256.npz"}
    assert [path.parent.name for path in old_snapshots(study, tmp_path, 0)] == ["trial-0"]


def test_snapshots_that_may_not_be_removed(tmp_path: Path) -> None:
    (tmp_path / "epoch-1.npz").mkdir()
    with pytest.raises(MiiiiSearchError, match="cannot remove"):
        remove_snapshots([tmp_path / "epoch-1.npz"])
