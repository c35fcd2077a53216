"""The pruner `forecast` on curves for which the right decision is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna.trial import TrialState

from miiii_search.config.study_sections import Pruning
from miiii_search.config.study_spec import StudySpec, rungs
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.base import PruningContext
from miiii_search.pruners.forecast import Forecast
from miiii_search.pruners.history import History
from miiii_search.pruners.peers import Peer
from tests.simulation.support import EXPERIMENT
from tests.support import empty_history

BUDGET = EXPERIMENT.epochs
RULE = Forecast(3.0)
Loss = NDArray[np.float64]


def shown(
    loss: Any,
    *,
    accuracy: Any = 0.3,
    train: Any = 1.0,
    norm: Any = 30.0,
    epoch: NDArray[np.int64] | None = None,
) -> History:
    """Signals at the rungs; each value one number, one a rung, or one a rung and task."""
    epoch = np.asarray(rungs(EXPERIMENT)) if epoch is None else epoch
    values = np.asarray(loss, float)
    values = values.reshape(len(values), -1)
    n, tasks = values.shape

    def spread(value: Any) -> Loss:
        array = np.asarray(value, float)
        return np.broadcast_to(array if array.ndim == 2 else array.reshape(-1, 1), (n, tasks)).copy()

    norms = np.broadcast_to(np.asarray(norm, float), (n,)).copy()
    return History(epoch, spread(train), spread(accuracy), values, norms)


def ask(history: History, epoch: int, rule: Forecast = RULE, experiment: Experiment = EXPERIMENT) -> str | None:
    """Ask the pruner about a lone trial at a rung."""
    trial = Peer(1, TrialState.RUNNING, {epoch: float(history.until(epoch).validation_accuracy[-1].mean())})
    return rule.should_prune(PruningContext(experiment, epoch, history.until(epoch), trial, [trial]))


def first_decision(history: History, rule: Forecast = RULE) -> tuple[int, str] | None:
    """Return when and why a run is pruned, asked at every rung from the default floor on."""
    floor = StudySpec(experiment=EXPERIMENT, space={}, pruning=Pruning(rule="forecast")).pruning_floor
    for epoch in history.epoch[:-1]:
        if epoch >= floor and (why := ask(history, int(epoch), rule)) is not None:
            return int(epoch), why
    return None


EPOCH = np.asarray(rungs(EXPERIMENT), float)


def hill(turn: float, height: float, zero: float) -> Loss:
    """Up to a height at the epoch `turn`, then down a straight line to zero at the epoch `zero`."""
    return np.where(
        turn > EPOCH, 1 + (height - 1) * EPOCH / turn, np.maximum(height * (zero - EPOCH) / (zero - turn), 0)
    )


def test_a_late_grokker_goes_on() -> None:
    """Its accuracy moves in the last quarter of the budget; its loss has long turned."""
    accuracy = np.where(EPOCH < 0.8 * BUDGET, 0.3, 1.0)
    assert first_decision(shown(hill(700, 4.0, 0.9 * BUDGET), accuracy=accuracy)) is None


def test_a_grokker_as_late_as_the_safety_allows_goes_on_and_one_that_is_later_does_not() -> None:
    for safety in (1.0, 2.0, 4.0):
        at = 2048
        reach = at + safety * (BUDGET - at)
        assert ask(shown(hill(700, 4.0, 0.98 * reach)), at, Forecast(safety)) is None
        why = ask(shown(hill(700, 4.0, 1.05 * reach)), at, Forecast(safety))
        assert why is not None and f"{safety:g} times as fast" in why and f"of {BUDGET:,}" in why


def test_a_run_that_never_groks_is_pruned_at_the_floor() -> None:
    decision = first_decision(shown(1 + np.log(EPOCH)))
    assert decision is not None and decision[0] == BUDGET // 8
    assert "has not fallen since epoch 512" in decision[1]


def test_while_its_weights_shrink_a_loss_may_still_turn() -> None:
    rising, at = 1 + EPOCH / 1000, 2048
    assert ask(shown(rising, norm=60 * np.exp(-EPOCH / 5000)), at) is None  # by 18 % in the second half
    assert ask(shown(rising, norm=60 * np.exp(-EPOCH / 50000)), at) is not None
    assert ask(shown(rising, norm=60 * np.exp(EPOCH / 5000)), at) is not None


def test_a_slow_memoriser_goes_on_until_it_has_been_memorised_for_half_of_its_life() -> None:
    train = np.minimum(EPOCH / 1200, 1.0)  # 0.85 at 1024, 1 at 1536
    decision = first_decision(shown(1 + EPOCH / 5000, train=train))
    assert decision is not None and decision[0] == 3072
    assert first_decision(shown(1 + EPOCH / 5000, train=0.5)) is None
    forgets = np.where(EPOCH == 1536, 0.5, 1.0)
    decision = first_decision(shown(1 + np.log(EPOCH), train=np.where(EPOCH == 768, 0.5, 1.0)))
    assert decision is not None and decision[0] == 2048
    assert ask(shown(1 + np.log(EPOCH), train=forgets), 2048) is None


def test_one_that_has_just_memorised_and_whose_loss_is_at_its_peak_goes_on() -> None:
    """As the grokkers of `nanda-113` with the rate 3e-4: memorised at the floor, and the loss falls from then on."""
    train = np.where(EPOCH < 1024, 0.7, 0.97)
    accuracy = np.where(EPOCH < 0.7 * BUDGET, 0.2, 1.0)
    assert first_decision(shown(hill(1024, 4.0, 0.75 * BUDGET), train=train, accuracy=accuracy)) is None


def test_an_early_solver_goes_on_whatever_its_loss_does_afterwards() -> None:
    solved = np.where(EPOCH < 500, 0.3, 1.0)
    assert first_decision(shown(np.where(EPOCH < 500, 3.0, 0.5 + EPOCH / BUDGET), accuracy=solved)) is None


def test_one_that_is_nearly_down_goes_on_while_it_falls_and_one_that_is_stuck_above_does_not() -> None:
    falling, stuck = 3 * np.exp(-EPOCH / 900), np.maximum(3 * np.exp(-EPOCH / 300), 0.2)
    assert first_decision(shown(falling, accuracy=0.98)) is None
    decision = first_decision(shown(stuck, accuracy=0.95))
    assert decision is not None and "has not fallen" in decision[1]


def test_a_run_is_given_up_only_if_no_task_is_on_its_way() -> None:
    lost, coming, done = 1 + np.log(EPOCH), hill(700, 4.0, 0.9 * BUDGET), np.full(len(EPOCH), 0.01)
    accuracy = np.stack([np.full(len(EPOCH), 0.1), np.full(len(EPOCH), 0.3), np.ones(len(EPOCH))], axis=1)
    assert first_decision(shown(np.stack([lost, coming, done], axis=1), accuracy=accuracy)) is None
    decision = first_decision(shown(np.stack([lost, lost, done], axis=1), accuracy=accuracy))
    assert decision is not None
    unlearned = np.stack([np.full(len(EPOCH), v) for v in (1.0, 0.2, 1.0)], axis=1)
    assert first_decision(shown(np.stack([lost, lost, done], axis=1), accuracy=accuracy, train=unlearned)) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_losses_that_are_no_numbers_do_no_harm(bad: float) -> None:
    """All of them, the last, and one in the middle."""
    for where in (slice(None), slice(-1, None), slice(9, 10)):
        loss = hill(700, 4.0, 0.9 * BUDGET)
        loss[where] = bad
        for epoch in rungs(EXPERIMENT):
            ask(shown(loss), epoch)


def test_nothing_is_decided_on_nothing() -> None:
    empty = empty_history()
    assert RULE.should_prune(PruningContext(EXPERIMENT, 16, empty, None, [])) is None
    rising = 1 + np.log(EPOCH)
    for n in range(1, 8):
        few = np.asarray(rungs(EXPERIMENT))[-n:]
        assert ask(shown(rising[-n:], epoch=few), int(few[-1])) is None
    few = np.asarray(rungs(EXPERIMENT))[-8:]
    assert ask(shown(rising[-8:], epoch=few), int(few[-1])) is not None


def test_peers_and_their_order_make_no_difference() -> None:
    history, peers = shown(1 + np.log(EPOCH)), [Peer(k, TrialState.COMPLETE, {1024: 0.5}) for k in range(4)]
    orders: list[Sequence[Peer]] = [[], peers, peers[::-1]]
    words = {
        RULE.should_prune(PruningContext(EXPERIMENT, 1024, history.until(1024), peers[0], order)) for order in orders
    }
    assert len(words) == 1 and None not in words


@given(st.lists(st.floats(0.001, 20), min_size=len(EPOCH), max_size=len(EPOCH)), st.floats(1, 10), st.floats(1, 10))
def test_more_safety_never_prunes_more(losses: list[float], one: float, other: float) -> None:
    history, (less, more) = shown(np.asarray(losses)), sorted([one, other])
    for epoch in rungs(EXPERIMENT)[5:]:
        if ask(history, epoch, Forecast(more)) is not None:
            assert ask(history, epoch, Forecast(less)) is not None


@given(st.lists(st.floats(0.001, 20), min_size=len(EPOCH), max_size=len(EPOCH)), st.integers(0, 3))
def test_a_longer_budget_never_prunes_more(losses: list[float], doublings: int) -> None:
    history = shown(np.asarray(losses))
    longer = EXPERIMENT.model_copy(update={"epochs": BUDGET * 2**doublings})
    for epoch in rungs(EXPERIMENT)[5:]:
        if ask(history, epoch, experiment=longer) is not None:
            assert ask(history, epoch) is not None


def test_what_comes_later_does_not_change_what_was_said() -> None:
    """Several rungs may be reported at once."""
    history = shown(hill(700, 4.0, 5 * BUDGET))
    later = replace(history, validation_loss=history.validation_loss.copy())
    later.validation_loss[-2:] = 0.0
    assert ask(history, 2048) == ask(later, 2048) is not None
