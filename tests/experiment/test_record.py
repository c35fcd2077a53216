"""The record of a run: selecting rows, joining, and its file."""

import io
import zipfile

import numpy as np
import pytest

from miiii_search.experiment.record import Record

NAMES = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "gradient_norm",
    "weight_norm",
]


def make_record(evaluations: int = 5, tasks: int = 3) -> Record:
    rng = np.random.default_rng(0)
    per_task = {name: rng.random((evaluations, tasks), np.float32) for name in NAMES[1:5]}
    norms = {name: rng.random((evaluations, 9), np.float32) for name in NAMES[5:]}
    return Record(epoch=np.arange(1, evaluations + 1, dtype=np.int32), **per_task, **norms)


def assert_same(actual: Record, expected: Record) -> None:
    for name in NAMES:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), strict=True)


def test_a_file_holds_all() -> None:
    record = make_record()
    record.validation_loss[2, 1] = np.nan
    assert_same(Record.from_npz(record.to_npz()), record)


def test_a_file_is_plain_numpy() -> None:
    """Other programs can read it: arrays under their names, including added ones, without pickle."""
    record = make_record()
    data = record.to_npz(moduli=np.asarray([2, 3, 5]))
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        assert sorted(arrays) == sorted([*NAMES, "moduli"])
        np.testing.assert_array_equal(arrays["train_loss"], record.train_loss, strict=True)
        assert arrays["moduli"].tolist() == [2, 3, 5]
    assert all(info.compress_type == zipfile.ZIP_DEFLATED for info in zipfile.ZipFile(io.BytesIO(data)).infolist())
    assert_same(Record.from_npz(data), record)


def test_pickle_is_neither_written_nor_read() -> None:
    objects = np.asarray([{"a": 1}], dtype=object)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        make_record().to_npz(objects=objects)
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **dict.fromkeys(NAMES, objects))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Record.from_npz(file.getvalue())


def test_rows_and_concatenate_are_inverse() -> None:
    record = make_record()
    assert len(record) == 5
    assert len(record.rows(slice(1, 3))) == 2
    assert record.rows(slice(1, 3)).epoch.tolist() == [2, 3]
    assert_same(
        Record.concatenate([record.rows(slice(0, 2)), record.rows(slice(2, 2)), record.rows(slice(2, 5))]), record
    )
