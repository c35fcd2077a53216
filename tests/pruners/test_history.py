"""The history that a pruner sees, compared with plain loops."""

from __future__ import annotations

import math

import numpy as np

from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.history import history_of


def test_signals_by_hand() -> None:
    """Task `masked`: the tasks that are left out are not seen; a loss of ln q is guessing."""
    experiment = Experiment(p=13, task="masked", train_fraction=0.5, epochs=64)
    chance, moduli = np.random.default_rng(0), experiment.task_moduli
    n, tasks = 4, len(moduli)
    record = Record(
        np.asarray([16, 32, 48, 64], np.int32),
        *(chance.random((n, tasks)).astype(np.float32) for _ in range(4)),
        *(chance.random((n, 9)).astype(np.float32) for _ in range(2)),
    )
    record.validation_loss[:] = np.log(moduli)
    seen = history_of(experiment, record)
    scored = [k for k, q in enumerate(moduli) if q not in (2, 3, 5, 7)]
    assert seen.validation_loss.shape == (n, len(scored))
    np.testing.assert_allclose(seen.validation_loss, 1, rtol=1e-6)
    for i in range(n):
        assert math.isclose(seen.weight_norm[i], math.sqrt(sum(float(x) ** 2 for x in record.weight_norm[i])))
        for column, k in enumerate(scored):
            assert seen.train_accuracy[i, column] == record.train_accuracy[i, k]
            assert seen.validation_accuracy[i, column] == record.validation_accuracy[i, k]
            expected = float(record.validation_loss[i, k]) / math.log(moduli[k])
            assert math.isclose(seen.validation_loss[i, column], expected, rel_tol=1e-9)
    assert len(seen) == 4
    assert [len(seen.until(epoch)) for epoch in (15, 16, 47, 48, 99)] == [0, 1, 2, 3, 4]
