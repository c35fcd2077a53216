"""The file format of curves, and the epoch at which a run is solved."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miiii_search.config.overrides import to_tree
from miiii_search.config.study_spec import rungs
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.history import history_of
from miiii_search.simulation.curves import find_solved_epoch, read_curves, write_curves
from tests.simulation.support import EXPERIMENT, curve_of, epochs_of, make_record, set_of

SHORT = Experiment(p=11, task="miiii", train_fraction=0.5, epochs=160, evaluate_every=4, solved_evaluations=3)


def random_record(seed: int, experiment: Experiment = EXPERIMENT) -> Record:
    chance, n = np.random.default_rng(seed), len(epochs_of(experiment))
    return make_record(chance.random(n), 3 * chance.random(n), chance.random(n), 50 * chance.random(n), experiment)


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=40), st.integers(1, 4))
def test_when_a_run_is_solved(reached: list[list[bool]], evaluations: int) -> None:
    """Against a search through all windows; four tasks."""
    experiment = SHORT.model_copy(update={"solved_evaluations": evaluations})
    accuracy = np.asarray(reached, np.float32)
    record = make_record(accuracy[:, 0], accuracy[:, 0], experiment=experiment)
    record.validation_accuracy[:] = accuracy
    expected = None
    for k in range(len(reached) - evaluations + 1):
        if all(all(row) for row in reached[k : k + evaluations]):
            expected = 4 * (k + 1)
            break
    assert find_solved_epoch(experiment, record) == expected


def test_a_file_holds_what_rules_and_pictures_need(tmp_path: Path) -> None:
    failed = random_record(2).rows(slice(0, 100))
    failed.validation_loss[-1] = np.nan
    solved = make_record(np.where(epochs_of() < 5000, 0.3, 1.0), np.where(epochs_of() < 5000, 2.0, 0.001))
    given = set_of(
        [
            curve_of(0, random_record(1)),
            curve_of(1, failed, failed_epoch=1600),
            curve_of(2, solved),
            curve_of(3, random_record(3).rows(slice(0, 64)), pruned=True),
        ]
    )
    path = tmp_path / "curves.npz"
    write_curves(path, [given, given.subset(given.curves[:1], "one")])
    read, one = read_curves(path)
    assert (read.name, one.name, len(one.curves)) == ("made-up", "one", 1)
    assert to_tree(read.spec) == to_tree(given.spec)
    for mine, theirs in zip(given.curves, read.curves, strict=True):
        for name in ("number", "point", "replicate", "solved_epoch", "ended_epoch", "failed", "pruned", "last_epoch"):
            assert getattr(mine, name) == getattr(theirs, name)
        for field in fields(Record):
            old, new = getattr(mine.record, field.name), getattr(theirs.record, field.name)
            np.testing.assert_allclose(new, old, rtol=2**-12)
        assert set(rungs(EXPERIMENT)) & set(epochs_of()[: mine.ended_epoch // 16].tolist()) <= set(mine.accuracy)
    assert (read.curves[2].solved_epoch, read.curves[2].last_epoch) == (5008, 5040)
    assert [curve.last_epoch for curve in read.curves] == [8192, 1600, 5040, 8192]
    assert read.curves[1].objective is None
    again = tmp_path / "again.npz"
    write_curves(again, [read])
    write_curves(tmp_path / "thrice.npz", read_curves(again))
    assert again.read_bytes() == (tmp_path / "thrice.npz").read_bytes()


def test_accuracies_of_whole_samples_survive_the_rounding(tmp_path: Path) -> None:
    """A target of 1 must stay apart from one sample less, and 0.5 must be 0.5."""
    accuracy = np.resize([1.0, 0.999, 0.995, 0.5, 0.0], len(epochs_of()))
    write_curves(tmp_path / "c.npz", [set_of([curve_of(0, make_record(accuracy, accuracy))])])
    [read] = read_curves(tmp_path / "c.npz")
    found = read.curves[0].record.validation_accuracy.ravel()
    assert set(found.tolist()) >= {1.0, 0.5, 0.0} and found[found > 0.9995].min() == 1.0
    assert ((found < 1) & (found > 0.99)).any()


def test_signals_are_those_of_the_whole_record_at_its_rungs() -> None:
    record = random_record(5)
    whole = history_of(EXPERIMENT, record.rows(np.isin(record.epoch, rungs(EXPERIMENT))))
    kept = curve_of(0, record).history
    for field in fields(whole):
        np.testing.assert_array_equal(getattr(kept, field.name), getattr(whole, field.name))


@pytest.mark.parametrize("what", [b"", b"not a file of ours", b"PK\x03\x04"])
def test_other_files_are_refused_in_a_line(what: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(what)
    with pytest.raises(MiiiiSearchError, match=r"other\.npz"):
        read_curves(path)
    with pytest.raises(MiiiiSearchError, match=r"nothing\.npz"):
        read_curves(tmp_path / "nothing.npz")
    np.savez(path, some=np.zeros(3))
    with pytest.raises(MiiiiSearchError, match="holds no curves"):
        read_curves(path)


def test_a_damaged_file_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    """Bytes are changed in headers, compressed data and the directory; NumPy and zipfile raise many exceptions."""
    file = tmp_path / "curves.npz"
    write_curves(file, [set_of([curve_of(0, random_record(5)), curve_of(1, random_record(6))])])
    data = file.read_bytes()
    refused = 0
    for at in range(0, len(data), max(1, len(data) // 400)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            read_curves(file)  # a byte that is not read, such as a time, does no harm
        except MiiiiSearchError:
            refused += 1
    assert refused > 100
