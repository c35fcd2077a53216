"""A complete run: it memorises first and generalises later."""

import numpy as np
import pytest

from miiii_search.errors import NonFiniteLossError
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.run import train

pytestmark = pytest.mark.slow

# XLA divides by multiplying with 1/165, so 165 of 165 is slightly less than 1. The target must be met
# nevertheless.
EXPERIMENT = Experiment(p=23, task="nanda", train_fraction=0.6, validation_samples=165, epochs=4096)
HYPERPARAMETERS = Hyperparameters(
    d_model=64, n_heads=4, learning_rate=3e-3, weight_decay=2.0, dropout=0.1, grokfast_lambda=0.5
)


def test_a_run_groks() -> None:
    assert np.float32(165) * (np.float32(1) / np.float32(165)) < 1
    reports: list[tuple[RunProgress, Record]] = []
    result = train(EXPERIMENT, HYPERPARAMETERS, lambda *report: reports.append(report))
    record, metrics = result.record, result.metrics

    memorised = int(np.argmax(record.train_accuracy[:, 0] == 1))
    assert record.train_accuracy[memorised, 0] == 1
    assert record.validation_accuracy[memorised, 0] < 0.8
    assert metrics.validation_accuracy == (1.0,)
    assert metrics.validation_accuracy_mean == 1.0
    assert metrics.test_accuracy[0] > 0.95
    # Three consecutive evaluations at the target end the run.
    assert (record.validation_accuracy[-3:] == 1).all()
    assert metrics.epochs_to_solve == record.epoch[-3] > record.epoch[memorised]
    assert metrics.epochs_trained == record.epoch[-1] == result.progress.epoch < EXPERIMENT.epochs

    # The reports join without gaps, and the last one is at the end.
    assert np.concatenate([new.epoch for _, new in reports]).tolist() == record.epoch.tolist()
    assert record.epoch.tolist() == list(range(16, metrics.epochs_trained + 1, 16))
    assert [progress.ended for progress, _ in reports] == [False] * (len(reports) - 1) + [True]


def test_a_run_that_is_not_finite_raises() -> None:
    with pytest.raises(NonFiniteLossError, match="not finite at epoch 2") as caught:
        train(EXPERIMENT, HYPERPARAMETERS.model_copy(update={"learning_rate": 1e30}))
    assert caught.value.epoch == 2
