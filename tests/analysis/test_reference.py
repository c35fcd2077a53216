"""Comparison of a run with reference curves: reading them, differences against a loop, mistakes in a file."""

from pathlib import Path

import numpy as np
import pytest

from miiii_search.analysis.figures.reference import compare_with_reference
from miiii_search.analysis.reference import (
    ReferenceCurves,
    differences_from_reference,
    last_crossing_epochs,
    read_reference,
)
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Experiment
from tests.analysis.figures.synthetic import make_findings

EXPERIMENT = Experiment(p=13, validation_samples=40, epochs=4096)
HEADER = "split,epoch,2,3,5,7,11\n"


def write_csv(path: Path, reference: ReferenceCurves) -> Path:
    lines = [",".join(["split", "epoch", *map(str, reference.moduli)])]
    for split, values in reference.accuracy.items():
        lines += [
            f"{split},{epoch},{','.join(map(str, row))}" for epoch, row in zip(reference.epochs, values, strict=True)
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_reference(moduli: tuple[int, ...] = (2, 3, 5, 7, 11)) -> ReferenceCurves:
    rng = np.random.default_rng(0)
    epochs = np.asarray([3, 90, 101, 333, 500, 900, 100_000])
    accuracy = {split: 0.05 + 0.95 * rng.uniform(size=(7, len(moduli))) for split in ("training", "validation")}
    return ReferenceCurves(
        "made-up", moduli, epochs, accuracy, min(float(values.min()) for values in accuracy.values())
    )


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = make_reference()
    read = read_reference(write_csv(tmp_path / "made-up.csv", written))
    assert (read.name, read.moduli, read.floor) == (written.name, written.moduli, written.floor)
    np.testing.assert_array_equal(read.epochs, written.epochs)
    for split in ("training", "validation"):
        np.testing.assert_array_equal(read.accuracy[split], written.accuracy[split])


def test_a_repeated_epoch_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("split,epoch,2\ntraining,3,0.5\ntraining,3,0.5\nvalidation,3,0.4\nvalidation,3,0.4\n")
    assert read_reference(path).epochs.tolist() == [3]


def test_differences_against_a_loop() -> None:
    """Tasks in another order, one that only the run has and one that only the reference has."""
    record = make_findings(EXPERIMENT).run.record
    assert record is not None
    reference = make_reference((11, 2, 7, 5, 97))
    compared = differences_from_reference(EXPERIMENT, record, reference)
    last = int(record.epoch[-1])
    expected_epochs = [epoch for epoch in reference.epochs.tolist() if record.epoch[0] <= epoch <= last]
    assert compared.epochs.tolist() == expected_epochs and len(expected_epochs) >= 3
    for split, accuracies in (("training", record.train_accuracy), ("validation", record.validation_accuracy)):
        for k, epoch in enumerate(expected_epochs):
            nearest = min(range(len(record)), key=lambda row: abs(int(record.epoch[row]) - epoch))
            rows = [row for row in range(len(record)) if abs(int(record.epoch[row]) - epoch) <= 0.05 * epoch]
            rows = rows if nearest in rows else [*rows, nearest]
            ours, theirs = list[float](), list[float]()
            for q in (2, 5, 7, 11):
                mine = float(np.mean([accuracies[row, EXPERIMENT.task_moduli.index(q)] for row in rows]))
                ours.append(max(mine, reference.floor))
                row = reference.epochs.tolist().index(epoch)
                theirs.append(reference.accuracy[split][row, reference.moduli.index(q)])
            assert compared.run[split][k] == pytest.approx(np.mean(ours), abs=1e-6)
            assert compared.reference[split][k] == pytest.approx(np.mean(theirs), abs=1e-12)
        gaps = np.abs(compared.run[split] - compared.reference[split])
        assert compared.largest(split) == (float(gaps.max()), expected_epochs[int(gaps.argmax())])
        assert compared.largest(split, until=expected_epochs[0]) == (float(gaps[0]), expected_epochs[0])
    assert compared.largest("training", until=1) == (0.0, 0)


def test_a_run_beside_itself_does_not_differ(tmp_path: Path) -> None:
    record = make_findings(EXPERIMENT).run.record
    assert record is not None
    rows = [0, 3, 9]  # early enough that no other evaluation lies within five per cent
    itself = ReferenceCurves(
        "itself",
        EXPERIMENT.task_moduli,
        record.epoch[rows].astype(np.int64),
        {
            "training": record.train_accuracy[rows].astype(np.float64),
            "validation": record.validation_accuracy[rows].astype(np.float64),
        },
        0.0,
    )
    compared = differences_from_reference(
        EXPERIMENT, record, read_reference(write_csv(tmp_path / "itself.csv", itself))
    )
    assert compared.largest("training")[0] < 1e-7 and compared.largest("validation")[0] < 1e-7


def test_the_epoch_from_which_accuracy_stays() -> None:
    epochs = np.asarray([1, 2, 4, 8])
    columns = np.asarray([[0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 0.8]]).T
    assert last_crossing_epochs(epochs, columns, 0.9) == [2, 8, 1, None]


def test_nothing_in_common_is_said() -> None:
    record = make_findings(EXPERIMENT).run.record
    assert record is not None
    with pytest.raises(MiiiiSearchError, match="no modulus in common"):
        differences_from_reference(EXPERIMENT, record, make_reference((89, 97)))
    late = make_reference()
    late = ReferenceCurves(late.name, late.moduli, late.epochs + 10**7, late.accuracy, 0.0)
    with pytest.raises(MiiiiSearchError, match="has no epoch between"):
        differences_from_reference(EXPERIMENT, record, late)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line of"),
        ("epoch,split,2\n", "the first line of"),
        ("split,epoch\n", "the first line of"),
        ("split,epoch,two\n", "the first line of"),
        (HEADER, "at least one"),
        (HEADER + "training,3,0,0,0,0,0\n", "the same epochs"),
        (HEADER + "training,3,0,0,0,0\n", "line 2 of"),
        (HEADER + "training,3,0,0,0,0,1.5\n", "line 2 of"),
        (HEADER + "training,3,0,0,0,0,nan\n", "line 2 of"),
        (HEADER + "test,3,0,0,0,0,0\n", "line 2 of"),
        (HEADER + "training,three,0,0,0,0,0\n", "line 2 of"),
        (HEADER + "\n", "line 2 of"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.csv"
    path.write_text(text)
    with pytest.raises(MiiiiSearchError, match=message) as caught:
        read_reference(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MiiiiSearchError, match="cannot read the reference"):
        read_reference(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MiiiiSearchError, match="cannot read the reference"):
        read_reference(tmp_path / "binary.csv")


def test_the_figure_shows_runs_and_reference() -> None:
    findings = [make_findings(EXPERIMENT)]
    figure = compare_with_reference(findings, make_reference())
    assert figure is not None
    upper, lower = figure.axes
    assert len(upper.lines) == 4  # two splits of the reference and of the run
    np.testing.assert_array_equal(upper.lines[0].get_xdata(), make_reference().epochs)
    assert [label.get_text() for label in lower.get_xticklabels()] == ["2", "3", "5", "7", "11"]
