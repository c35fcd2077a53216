"""The final metrics of a run, and their comparison with those of a repetition."""

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest

from miiii_search.experiment.metrics import (
    Metrics,
    compare_metrics,
    format_accuracy,
    hash_weights,
    mean_accuracy,
    summarize,
)
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment

RECORDED = Metrics(
    epochs_trained=2000,
    epochs_to_solve=1000,
    validation_accuracy_mean=0.75,
    moduli=(2, 3),
    train_accuracy=(1.0, 1.0),
    train_loss=(0.1, 0.2),
    validation_accuracy=(0.5, 1.0),
    validation_loss=(0.3, 0.4),
    test_accuracy=(0.5, 1.0),
    test_loss=(0.3, 0.4),
    weights_sha256="ab",
)


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [(0.0, "0.000"), (0.9984, "0.998"), (0.99966, "0.999"), (1 - 1e-7, "0.999"), (1.0, "1.000"), (1.0764, "1.076")],
)
def test_what_falls_short_of_one_does_not_read_as_one(accuracy: float, words: str) -> None:
    assert format_accuracy(accuracy) == format_accuracy(float(np.float32(accuracy))) == words


def measured(**changes: Any) -> Metrics:
    return RECORDED.model_copy(update=changes)


def test_identical_is_every_number() -> None:
    verdict, words = compare_metrics(RECORDED, measured())
    assert (verdict, words) == ("identical", "every metric and every weight")


@pytest.mark.parametrize(
    "change",
    [{"weights_sha256": "cd"}, {"train_loss": (0.1, 0.2000001)}, {"test_accuracy": (0.5, 0.9)}, {"epochs_trained": 1}],
)
def test_anything_else_only_agrees(change: dict[str, Any]) -> None:
    assert compare_metrics(RECORDED, measured(**change))[0] == "agrees"


def of_1000(right: int) -> float:
    """Return a mean accuracy as a run computes it."""
    return float(np.float32(right) / np.float32(1000))


def test_half_a_point_agrees_and_more_differs() -> None:
    for before in range(995):
        recorded = measured(validation_accuracy=(of_1000(before), 1.0))
        for after, verdict in [(before + 5, "agrees"), (before + 6, "differs")]:
            other = measured(validation_accuracy=(of_1000(after), 1.0), weights_sha256="cd")
            assert compare_metrics(recorded, other)[0] == verdict
            assert compare_metrics(other, recorded)[0] == verdict


def test_the_worst_task_is_named() -> None:
    verdict, words = compare_metrics(RECORDED, measured(validation_accuracy=(0.504, 0.9)))
    assert verdict == "differs"
    assert "0.1000 at most (q = 3)" in words


@pytest.mark.parametrize(
    ("epochs", "verdict"), [(950, "agrees"), (1050, "agrees"), (949, "differs"), (1051, "differs")]
)
def test_epochs_to_solve_within_five_percent(epochs: int, verdict: str) -> None:
    actual, words = compare_metrics(RECORDED, measured(epochs_to_solve=epochs))
    assert actual == verdict
    assert f"solved at epoch {epochs:,}, recorded 1,000" in words


def test_solved_and_unsolved_differ() -> None:
    verdict, words = compare_metrics(RECORDED, measured(epochs_to_solve=None))
    assert verdict == "differs"
    assert "the recorded run was solved, this one was not" in words
    verdict, words = compare_metrics(measured(epochs_to_solve=None), RECORDED)
    assert verdict == "differs"
    assert "this run was solved, the recorded one was not" in words
    unsolved = measured(epochs_to_solve=None)
    assert compare_metrics(unsolved, unsolved)[0] == "identical"
    assert compare_metrics(unsolved, measured(epochs_to_solve=None, weights_sha256="cd"))[0] == "agrees"


def test_other_tasks_differ() -> None:
    assert compare_metrics(RECORDED, measured(moduli=(2, 5)))[0] == "differs"


def make_record(tasks: int) -> Record:
    last = np.linspace(0, 1, tasks, dtype=np.float32)
    rows = np.stack([np.full(tasks, 9, np.float32), last])
    norms = np.ones((2, 9), np.float32)
    return Record(np.asarray([8, 16], np.int32), rows, rows, rows, rows, norms, norms)


def test_summarize_takes_the_last_evaluation() -> None:
    experiment = Experiment(p=17, task="masked")  # q = 2, 3, 5, 7 are not scored, 11 and 13 are
    final = {
        "train_loss": np.asarray([1, 2, 3, 4, 5, np.nan], np.float32),
        "train_accuracy": np.full(6, 0.75, np.float32),
        "test_loss": np.asarray([1, 2, 3, 4, np.nan, np.inf], np.float32),
        "test_accuracy": np.full(6, 0.25, np.float32),
    }
    weights = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2), np.float32)}
    metrics = summarize(experiment, make_record(6), None, final, weights)
    assert metrics.epochs_trained == 16
    assert metrics.epochs_to_solve is None
    assert metrics.moduli == (2, 3, 5, 7, 11, 13)
    assert metrics.validation_accuracy == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1))
    assert metrics.validation_accuracy_mean == pytest.approx(0.9)
    assert all(math.isfinite(loss) for loss in metrics.train_loss + metrics.test_loss)
    assert metrics.train_accuracy == (0.75,) * 6
    assert metrics.test_accuracy == (0.25,) * 6
    # Metrics that are written to a file are equal when they are read.
    assert Metrics.model_validate_json(metrics.model_dump_json()) == metrics
    assert Metrics(**json.loads(json.dumps(metrics.model_dump()))) == metrics


def test_the_mean_is_over_scored_tasks() -> None:
    accuracy = np.asarray([1, 1, 1, 1, 0.5], np.float32)
    assert mean_accuracy(Experiment(p=13, task="masked"), accuracy) == 0.5
    assert mean_accuracy(Experiment(p=13), accuracy) == 0.9


def test_the_digest_is_of_names_and_bytes_in_order() -> None:
    weights = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2), np.float32)}
    expected = hashlib.sha256(b"a" + weights["a"].tobytes() + b"b" + weights["b"].tobytes()).hexdigest()
    assert hash_weights(weights) == expected == hash_weights(dict(reversed(weights.items())))
    # A view in another memory order is the same matrix.
    assert hash_weights({"w": np.arange(6.0).reshape(2, 3).T}) == hash_weights(
        {"w": np.arange(6.0).reshape(2, 3).T.copy()}
    )
    assert hash_weights(weights | {"a": np.zeros((2, 2), np.float32)}) != expected
