"""Lanes: the result of a run does not depend on other lanes, on their number, or on the length of chunks."""

from collections.abc import Sequence

import numpy as np
import pytest

from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lane_functions import MAX_EVALUATIONS
from miiii_search.training.lane_state import Arrays
from miiii_search.training.lane_stores import VmappedLanes
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey
from tests.training.small import EXPLODING, INTERVAL, NARROW, SMALL, with_seed

Run = tuple[Experiment, Hyperparameters]

WIDTH_AND_CHUNK = [(1, 20), (3, 3), (8, 7)]


def make_runs(*learning_rates: float) -> list[Run]:
    """Return ten runs that differ in everything in which lanes of one program may differ."""
    return [
        (
            with_seed(seed).model_copy(update={"grokfast_alpha": (0.98, 0.9)[seed % 2]}),
            NARROW.model_copy(
                update={
                    "learning_rate": learning_rates[seed % len(learning_rates)],
                    "dropout": (0.0, 0.1, 0.5)[seed % 3],
                    "grokfast_lambda": (0.0, 0.5, 2.0)[(seed + seed // 3) % 3],
                    "weight_decay": (0.0, 0.1, 0.5, 1.0)[seed % 4],
                }
            ),
        )
        for seed in range(10)
    ]


def train_all(lanes: Lanes, runs: Sequence[Run], width: int, chunk: int) -> list[Arrays]:
    """Return the final weights of all runs, trained `width` at a time.

    At first the other lanes hold runs that are released one by one, so that lanes are at different epochs.
    """
    pruned = [lanes.admit(with_seed(100 + k), NARROW) for k in range(width - 1)]
    waiting, running, weights = list(range(len(runs))), dict[int, int](), dict[int, Arrays]()
    while len(weights) < len(runs):
        if pruned and running:
            lanes.release(pruned.pop())
        while waiting and len(lanes) < width:
            run = waiting.pop(0)
            running[lanes.admit(*runs[run])] = run
        lanes.train(chunk)
        for lane in [lane for lane in running if lanes.progress(lane).ended]:
            run = running.pop(lane)
            weights[run] = lanes.weights(lane)
            assert lanes.progress(lane).epoch == 200
            if waiting:  # otherwise the lane stays, so that the width does
                lanes.release(lane)
    for lane in sorted(lanes._progress):
        lanes.release(lane)
    return [weights[run] for run in range(len(runs))]


def assert_same(actual: Arrays, expected: Arrays) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def relative_distance(actual: Arrays, expected: Arrays) -> float:
    """Return the largest ‖ΔW‖/‖W‖ of all matrices."""
    return max(
        float(np.linalg.norm(actual[name] - expected[name]) / np.linalg.norm(expected[name])) for name in expected
    )


@pytest.mark.slow
@pytest.mark.parametrize("n_runs", [4, 10])
def test_sequential_lanes_are_identical_whatever_their_number(sequential: Lanes, n_runs: int) -> None:
    runs = make_runs(1e-2, 1e-3, 1e-4)[:n_runs]
    alone, *others = [train_all(sequential, runs, *shape) for shape in WIDTH_AND_CHUNK]
    for other in others:
        for actual, expected in zip(other, alone, strict=True):
            assert_same(actual, expected)
    # The runs differ, and all are finite.
    assert len({weights["query"].tobytes() for weights in alone}) == len(runs)
    assert all(np.isfinite(array).all() for weights in alone for array in weights.values())


@pytest.mark.slow
def test_batched_lanes_agree_with_sequential_ones(sequential: Lanes, batched: Lanes) -> None:
    """They agree within 1e-4 after 200 epochs at the lower of the paper's learning rates.

    Batched products sum in another order. Most runs end up 1e-8 to 1e-6 apart; but where rounding moves a
    pre-activation across ReLU's kink, the gradient of that one neuron changes by a finite amount, and Adam makes
    a step of full size of it. So one run in ten may go further, though not far.
    """
    runs = make_runs(1e-4, 5e-5)
    reference = train_all(sequential, runs, 1, 20)
    for width, chunk in WIDTH_AND_CHUNK:
        weights = train_all(batched, runs, width, chunk)
        distances = sorted(relative_distance(*pair) for pair in zip(weights, reference, strict=True))
        assert distances[-2] < 1e-4
        assert distances[-1] < 1e-3
        assert np.median(distances) < 1e-6
    # This is far less than the runs moved.
    lane = sequential.admit(*runs[0])
    assert relative_distance(reference[0], sequential.weights(lane)) > 1e-2
    # One program per width, whatever the hyperparameters.
    assert isinstance(batched._store, VmappedLanes) and len(batched._store.programs) == len(WIDTH_AND_CHUNK)


@pytest.mark.slow
def test_batched_lanes_differ_by_no_more_than_rounding(sequential: Lanes, batched: Lanes) -> None:
    """At a high rate they diverge as far as runs whose initial weights differ by one unit in the last place."""
    runs = make_runs(1e-3)
    reference = train_all(sequential, runs, 1, 20)
    weights = train_all(batched, runs, *WIDTH_AND_CHUNK[1])
    distances = [relative_distance(*pair) for pair in zip(weights, reference, strict=True)]
    nudged = [
        relative_distance(train_nudged(sequential, run, seed), expected)
        for run, expected in zip(runs, reference, strict=True)
        for seed in range(5)
    ]
    assert max(distances) < 3 * max(nudged)
    assert np.median(distances) < 10 * np.median(nudged)


def train_nudged(lanes: Lanes, run: Run, seed: int) -> Arrays:
    """Return the final weights of a run whose initial weights are each moved to the next float32 up or down."""
    lane = lanes.admit(*run)
    state = lanes.state(lane)
    lanes.release(lane)
    rng = np.random.default_rng(seed)
    for name, array in state.items():
        if name.startswith("weights."):
            towards = np.where(rng.random(array.shape) < 0.5, np.inf, -np.inf).astype(np.float32)
            state[name] = np.nextafter(array, towards)
    lane = lanes.admit(*run, state)
    lanes.train(20)
    weights = lanes.weights(lane)
    lanes.release(lane)
    return weights


@pytest.mark.slow
def test_what_batched_lanes_report_is_their_own(sequential: Lanes, batched: Lanes) -> None:
    runs = make_runs(1e-4)[:3]
    for lanes in (sequential, batched):
        assert [lanes.admit(*run) for run in runs] == [0, 1, 2]
    expected, actual = sequential.train(3), batched.train(3)
    for lane in range(3):
        for name, rows in vars(expected[lane]).items():
            np.testing.assert_allclose(getattr(actual[lane], name), rows, rtol=1e-4, atol=1e-6, err_msg=name)
        assert batched.progress(lane) == sequential.progress(lane)
        for name, values in sequential.final_metrics(lane).items():
            np.testing.assert_allclose(batched.final_metrics(lane)[name], values, rtol=1e-4, err_msg=name)
    assert len({float(record.train_loss[0, 0]) for record in actual.values()}) == 3


@pytest.mark.slow
def test_a_run_continues_exactly_from_its_state(lanes: Lanes) -> None:
    run = with_seed(3), NARROW.model_copy(update={"dropout": 0.5})
    lane = lanes.admit(*run)
    lanes.train(20)
    expected_weights, expected_progress = lanes.weights(lane), lanes.progress(lane)
    lanes.release(lane)

    lane = lanes.admit(*run)
    lanes.train(4)
    state = lanes.state(lane)
    copy = {name: array.copy() for name, array in state.items()}
    lanes.train(5)
    lanes.release(lane)
    # Further training, perhaps in the same memory, must not change the state.
    assert_same(state, copy)

    lane = lanes.admit(*run, state)
    assert lanes.progress(lane).epoch == 4 * INTERVAL
    assert_same(lanes.state(lane), copy)
    record = lanes.train(20)[lane]
    assert record.epoch.tolist() == list(range(5 * INTERVAL, 201, INTERVAL))
    assert_same(lanes.weights(lane), expected_weights)
    assert lanes.progress(lane) == expected_progress
    assert_same(state, copy)


def test_a_state_moves_between_modes(sequential: Lanes, batched: Lanes) -> None:
    lane = sequential.admit(with_seed(1), NARROW)
    sequential.train(2)
    state = sequential.state(lane)
    other = batched.admit(with_seed(1), NARROW, state)
    assert_same(batched.state(other), state)


def test_a_lane_that_explodes_leaves_its_neighbours_alone(lanes: Lanes) -> None:
    runs = [(with_seed(5), NARROW), (with_seed(6), NARROW), (with_seed(7), NARROW)]
    # Three lanes both times, so the same program. Only the middle lane's learning rate differs.
    weights, records = [], []
    for middle in (NARROW, EXPLODING):
        runs[1] = (runs[1][0], middle)
        indices = [lanes.admit(*run) for run in runs]
        records.append(lanes.train(20))
        weights.append([lanes.weights(lane) for lane in indices])
        progress = [lanes.progress(lane) for lane in indices]
        for lane in reversed(indices):
            lanes.release(lane)
    first, second, third = progress
    # The first step makes weights of 1e30, so the loss of the second overflows.
    assert second.failed_epoch == 2
    assert second.ended
    assert second.solved_epoch is None
    assert second.epoch == INTERVAL
    assert len(records[1][1]) == 1
    for healthy in (first, third):
        assert healthy.failed_epoch is None
        assert healthy.epoch == 200
    for k in (0, 2):
        assert_same(weights[1][k], weights[0][k])
        for name, rows in vars(records[1][k]).items():
            np.testing.assert_array_equal(rows, getattr(records[0][k], name))
            assert np.isfinite(rows).all()


@pytest.mark.parametrize("chunk", [1, 7, MAX_EVALUATIONS])
def test_a_run_ends_exactly_at_its_last_epoch(lanes: Lanes, chunk: int) -> None:
    lane = lanes.admit(with_seed(2), NARROW)
    records = []
    while not lanes.progress(lane).ended:
        records.append(lanes.train(chunk)[lane])
    assert Record.concatenate(records).epoch.tolist() == list(range(INTERVAL, 201, INTERVAL))
    assert lanes.progress(lane).epoch == 200
    weights = lanes.weights(lane)
    # Training does not change a run that has ended.
    assert len(lanes.train(1)[lane]) == 0
    assert_same(lanes.weights(lane), weights)


def test_lanes_of_all_hyperparameters_share_one_program() -> None:
    key = ProgramKey.of(SMALL, NARROW)
    for experiment, hyperparameters in make_runs(1e-2, 1e-4):
        assert ProgramKey.of(experiment, hyperparameters) == key
    for other in (
        SMALL.model_copy(update={"p": 13}),
        SMALL.model_copy(update={"epochs": 100}),
        SMALL.model_copy(update={"data_seed": 1}),
        SMALL.model_copy(update={"dropout_mask": "batch"}),
    ):
        assert ProgramKey.of(other, NARROW) != key
    assert ProgramKey.of(SMALL, NARROW.model_copy(update={"d_model": 64})) != key


def test_indices_are_reused(lanes: Lanes) -> None:
    assert [lanes.admit(with_seed(seed), NARROW) for seed in range(3)] == [0, 1, 2]
    lanes.release(1)
    assert len(lanes) == 2
    first, last = lanes.weights(0), lanes.weights(2)
    assert lanes.admit(with_seed(9), NARROW) == 1
    assert_same(lanes.weights(0), first)
    assert_same(lanes.weights(2), last)
    with pytest.raises(KeyError):
        lanes.progress(3)


def test_a_run_of_another_shape_is_refused(sequential: Lanes) -> None:
    for experiment, hyperparameters in [
        (SMALL, NARROW.model_copy(update={"d_model": 64})),
        (SMALL, NARROW.model_copy(update={"n_heads": 8})),
        (SMALL.model_copy(update={"p": 13}), NARROW),
        (SMALL.model_copy(update={"epochs": 100}), NARROW),
    ]:
        with pytest.raises(ValueError, match="another program"):
            sequential.admit(experiment, hyperparameters)
    assert len(sequential) == 0


def test_the_names_in_a_state_are_those_of_stored_checkpoints(sequential: Lanes) -> None:
    """Checkpoints of earlier versions call the hyperparameters `knobs`."""
    weights = ["attention_output", "feed_forward_in", "feed_forward_out", "key", "position_embedding", "query"]
    weights += ["token_embedding", "unembedding", "value"]
    hyperparameters = ["dropout", "grokfast_alpha", "grokfast_lambda", "learning_rate", "weight_decay"]
    assert sequential.state(sequential.admit(SMALL, NARROW)).keys() == {
        *("epoch", "failed_epoch", "key", "solved_epoch", "streak", "optimizer.0.updates", "optimizer.1.0.count"),
        *(f"knobs.{name}" for name in hyperparameters),
        *(f"{prefix}.{name}" for prefix in ("weights", "optimizer.0.average") for name in weights),
        *(f"optimizer.1.0.{moment}.{name}" for moment in ("mu", "nu") for name in weights),
    }


@pytest.mark.parametrize("name", ["weights.query", "epoch", "knobs.dropout"])
def test_a_state_of_another_shape_is_refused(sequential: Lanes, name: str) -> None:
    lane = sequential.admit(SMALL, NARROW)
    state = sequential.state(lane)
    for wrong in (state[name][None], state[name].astype(np.float64)):
        with pytest.raises(ValueError, match=rf"^{name} of the state must be \w+32\[.*\], but is "):
            sequential.admit(SMALL, NARROW, state | {name: wrong})
    with pytest.raises(ValueError, match=f"lacks {name}"):
        sequential.admit(SMALL, NARROW, {k: array for k, array in state.items() if k != name})
    assert len(sequential) == 1


@pytest.mark.parametrize("evaluations", [0, MAX_EVALUATIONS + 1])
def test_a_chunk_has_limits(sequential: Lanes, evaluations: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and {MAX_EVALUATIONS}, but is {evaluations}"):
        sequential.train(evaluations)


def test_no_lanes_train_to_nothing(lanes: Lanes) -> None:
    assert lanes.train(1) == {}
