"""The pruner `forecast` on sixteen rungs, computed by hand: each threshold, each kind of curve, each message."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.base import PruningContext
from miiii_search.pruners.forecast import HISTORY_KEY, Forecast
from miiii_search.pruners.history import History

EPOCHS = np.arange(64, 1025, 64)
"""The second half of the run begins at the eighth rung, epoch 512."""
HALF = 8
RISING = np.linspace(1, 4, 16)


def make_history(*losses: Any, train: Any = 1.0, accuracy: Any = 0.3, norm: Any = 30.0, n: int = 16) -> History:
    """The last `n` of sixteen rungs; a loss is one value a rung, the others one value, one a rung or one a task."""
    loss = np.stack([np.asarray(values, float) for values in losses], axis=1)
    shape = (16, len(losses))
    columns = [np.broadcast_to(np.asarray(value, float), shape) for value in (train, accuracy)]
    norms = np.broadcast_to(np.asarray(norm, float), (16,))
    return History(EPOCHS[-n:], columns[0][-n:], columns[1][-n:], loss[-n:], norms[-n:])


def from_epoch(epoch: int, before: float, after: float) -> Any:
    """A value that changes at an epoch, by rung and task."""
    return np.where(epoch > EPOCHS, before, after).reshape(-1, 1)


def falling(start: float = 2.0, end: float = 1.0) -> Any:
    """A loss that rises until epoch 512, and then falls along a line."""
    return np.concatenate([np.linspace(1, start, HALF)[:-1], np.linspace(start, end, 9)])


def reason(history: History, epochs: int = 2000, safety: float = 3.0, target: float = 1.0) -> str | None:
    return Forecast(safety).reason(history, epochs, target)


SO_FAR = "memorised by epoch 512, its weights no longer shrink, and at epoch 1,024 the validation loss"


def test_the_reasons() -> None:
    assert reason(make_history(RISING)) == f"{SO_FAR} (4.00 times that of guessing) has not fallen since epoch 512"
    assert reason(make_history(RISING, RISING / 2, RISING / 4), 2000) == (
        f"{SO_FAR} of its 3 unsolved tasks, 1.00 or more times that of guessing, has not fallen since epoch 512"
    )
    accuracy = np.tile([1.0, 0.3, 0.4], (16, 1))  # the first task is solved
    assert reason(make_history(RISING / 4, RISING, RISING / 2, accuracy=accuracy)) == (
        f"{SO_FAR} of its 2 unsolved tasks, 2.00 or more times that of guessing, has not fallen since epoch 512"
    )
    # From 4 to 3.5 in 512 epochs: the rest takes 7 times as long, or 3,584 / 3 epochs.
    assert reason(make_history(falling(4, 3.5))) == (
        f"{SO_FAR} (3.50 times that of guessing) would only reach zero at epoch 2,219 of 2,000, "
        "even if it fell 3 times as fast as since epoch 512"
    )


@pytest.mark.parametrize(("safety", "zero"), [(1.0, 1536), (2.0, 1280), (4.0, 1152)])
def test_a_run_goes_on_if_its_loss_can_reach_zero_at_the_last_epoch(safety: float, zero: int) -> None:
    """From 2 to 1 in 512 epochs: as many again, or fewer by the safety."""
    assert reason(make_history(falling()), zero, safety) is None
    assert reason(make_history(falling()), zero - 1, safety) is not None


def test_the_fall_is_measured_from_the_highest_loss_of_the_second_half() -> None:
    later = falling()
    later[9] = 3.0  # epoch 640: the fall of 2 took 384 epochs, so the rest of 1 takes 192
    assert reason(make_history(later), 1216, 1.0) is None
    assert reason(make_history(later), 1215, 1.0) is not None
    rebound = falling()
    rebound[-1] = 1.5  # its lowest is 1.125 at epoch 960: 1.125 / 0.875 * 512 = 658.3
    assert reason(make_history(rebound), 1683, 1.0) is None
    assert reason(make_history(rebound), 1682, 1.0) is not None


def test_a_loss_whose_peak_was_in_the_first_half_must_reach_a_new_low() -> None:
    early = np.concatenate([[1, 4, 3, 2.5, 2, 2, 2], np.linspace(2, 1, 9)])  # peaks at the second rung
    assert reason(make_history(early), 1536, 1.0) is None
    assert reason(make_history(early), 1535, 1.0) is not None
    dipped = early.copy()
    dipped[5] = 1.0  # as low as the second half: no new low
    why = reason(make_history(dipped), 10**6, 1.0)
    assert why is not None and "has not fallen" in why
    before = early.copy()
    before[0] = 0.5  # before the peak it does not count
    assert reason(make_history(before), 1536, 1.0) is None


def test_a_loss_that_rises_again_after_a_new_low_allows_no_forecast() -> None:
    rises = np.concatenate([[1, 4, 3, 3, 3, 3, 3], [2.0, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.1, 2.2]])
    assert reason(make_history(rises), 1025, 1.0) is None  # the last rung is the highest of the second half
    falls_last = rises.copy()
    falls_last[-2] = 2.3
    assert reason(make_history(falls_last), 1025, 1.0) is not None
    assert reason(make_history(RISING), 10**6, 1.0) is not None  # the highest of all: it never fell


def test_a_loss_that_rises_without_a_new_low_has_not_fallen() -> None:
    rises = np.concatenate([[1, 4, 1, 2, 3, 3, 3], np.linspace(2, 3, 9)])  # peaks and dips in the first half
    why = reason(make_history(rises), 10**6, 1.0)
    assert why is not None and "has not fallen" in why


def test_equal_losses_have_not_fallen() -> None:
    why = reason(make_history(np.full(16, 2.0)), 10**6)
    assert why is not None and "has not fallen" in why


def test_the_task_that_is_solved_first_decides() -> None:
    assert reason(make_history(RISING, falling()), 1536, 1.0) is None
    assert reason(make_history(RISING, falling()), 1535, 1.0) is not None


def test_a_run_needs_eight_rungs() -> None:
    assert reason(make_history(RISING, n=7)) is None
    assert reason(make_history(RISING, n=8)) is not None
    # All but the last rung in the first half: nothing to extrapolate.
    early = History(np.asarray([*range(1, 16), 1000]), *(make_history(RISING).__dict__[x] for x in COLUMNS))
    assert reason(early) is None
    two = History(np.asarray([*range(1, 15), 600, 1000]), *(make_history(RISING).__dict__[x] for x in COLUMNS))
    assert reason(two) is not None


COLUMNS = ("train_accuracy", "validation_accuracy", "validation_loss", "weight_norm")


def test_a_task_counts_as_memorised_from_an_accuracy_of_nine_tenths_on() -> None:
    assert reason(make_history(RISING, train=0.9)) is not None
    assert reason(make_history(RISING, train=0.899)) is None
    # The whole of the second half counts, and nothing before.
    assert reason(make_history(RISING, train=from_epoch(512, 0.1, 0.95))) is not None
    assert reason(make_history(RISING, train=from_epoch(576, 0.1, 0.95))) is None
    assert reason(make_history(RISING, train=from_epoch(1024, 0.95, 0.1))) is None
    # Every unsolved task must be memorised, and a solved one need not be.
    tasks = make_history(RISING, RISING, train=np.tile([0.95, 0.5], (16, 1)))
    assert reason(tasks) is None
    solved = make_history(RISING, RISING, train=np.tile([0.95, 0.5], (16, 1)), accuracy=np.tile([0.3, 1.0], (16, 1)))
    assert reason(solved) is not None


def test_weights_shrink_if_they_lose_a_twentieth_in_the_second_half() -> None:
    for norm, is_pruned in ((0.95 * 40, True), (0.949 * 40, False), (40, True), (60, True)):
        norms = np.where(EPOCHS <= 512, 40.0, norm)
        assert (reason(make_history(RISING, norm=norms)) is not None) == is_pruned
    last = np.where(EPOCHS < 1024, 40.0, 30.0)  # the last rung counts
    assert reason(make_history(RISING, norm=last)) is None
    earlier = np.where(EPOCHS < 512, 60.0, 40.0)  # before the second half
    assert reason(make_history(RISING, norm=earlier)) is not None


def test_a_task_is_solved_at_the_target_accuracy() -> None:
    assert reason(make_history(RISING, accuracy=0.95), target=0.95) is None
    assert reason(make_history(RISING, accuracy=0.95), target=0.951) is not None
    # Its accuracy at the last rung counts.
    assert reason(make_history(RISING, accuracy=from_epoch(1024, 1.0, 0.5))) is not None
    assert reason(make_history(RISING, accuracy=from_epoch(1024, 0.5, 1.0))) is None


def test_a_loss_that_is_not_a_number_is_the_highest() -> None:
    broken = falling()
    broken[:3] = np.nan
    why = reason(make_history(broken), 10**6, 1.0)  # its peak is in the first half, and 1 is a new low there
    assert why is None
    broken[:3], broken[-1] = 1.0, np.nan  # the highest of all, at the last rung
    why = reason(make_history(broken), 10**6, 1.0)
    assert why is not None and "has not fallen" in why


def test_in_a_study_the_experiment_gives_the_budget_and_the_target() -> None:
    history = make_history(falling(), accuracy=0.9)
    experiment = Experiment(p=7, task="nanda", train_fraction=0.5, epochs=1535, validation_samples=10)

    def ask(**changed: Any) -> str | None:
        context = PruningContext(experiment.model_copy(update=changed), 1024, history, None, [])
        return Forecast(1.0).should_prune(context)

    assert ask() is not None
    assert ask(epochs=1536) is None
    assert ask(target_accuracy=0.9) is None


def test_forecast_compares_with_no_other_trial() -> None:
    assert not Forecast().uses_peers
    assert Forecast() == Forecast(3.0, epochs=0, target_accuracy=1.0)


def test_what_is_reported_to_an_optuna_study() -> None:
    """The measurements are kept as attributes, and `prune` decides on them as `reason` does."""
    study = optuna.create_study(direction="maximize", pruner=Forecast(1.0, 1535, 0.9))
    trial = study.ask()
    loss = falling()
    for k, epoch in enumerate(EPOCHS):
        if k == 0:
            assert not trial.should_prune()  # nothing was reported
        Forecast.report(
            trial,
            int(epoch),
            train_accuracy=[1.0, 0.95],
            validation_accuracy=np.asarray([1.0, 0.5]),
            validation_loss=[0.1, loss[k]],
            weight_norm=30.0,
        )
    rows = trial.user_attrs[HISTORY_KEY]
    assert rows[0] == [64, [1.0, 0.95], [1.0, 0.5], [0.1, 1.0], 30.0] and len(rows) == 16
    frozen = study.trials[0]
    assert frozen.intermediate_values == dict.fromkeys(EPOCHS.tolist(), 0.75)
    assert trial.should_prune()
    for pruner, decision in ((Forecast(1.0, 1536, 0.9), False), (Forecast(1.0, 1535, 0.5), False)):
        assert pruner.prune(study, frozen) is decision
    assert Forecast(1.0, 1, 1.0).prune(study, frozen) is True
    with pytest.raises(ValueError, match=r"needs the epoch budget of a run: Forecast\(epochs=10_000\)"):
        Forecast(1.0, 0).prune(study, frozen)
