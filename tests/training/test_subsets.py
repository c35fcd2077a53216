"""Runs with subsets of the moduli: they share a program, and what is masked has a gradient of exactly 0."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lanes import Lanes
from miiii_search.training.loss import task_slices
from miiii_search.training.program import Program, ProgramKey

HYPERPARAMETERS = Hyperparameters(
    d_model=8, n_heads=2, learning_rate=1e-2, weight_decay=0.0, dropout=0.0, grokfast_lambda=0.5
)
MODULI = (2, 3, 5)


def experiment(moduli: str | None, **fields: Any) -> Experiment:
    common = {"p": 7, "epochs": 64, "evaluate_every": 16, "validation_samples": 10, "solved_evaluations": 1}
    return Experiment(**{**common, **fields}, moduli=moduli)


@pytest.fixture(scope="module")
def program() -> Program:
    return Program(ProgramKey.of(experiment("all"), HYPERPARAMETERS))


def test_all_subsets_share_a_program_and_no_subset_has_its_own() -> None:
    keys = {ProgramKey.of(experiment(m), HYPERPARAMETERS) for m in ("all", "2", "5", "2,3", "all but 3", "2,3,5")}
    assert len(keys) == 1
    assert ProgramKey.of(experiment(None), HYPERPARAMETERS) not in keys


@pytest.mark.parametrize("moduli", ["all", "2", "3,5", "all but 3"])
def test_a_masked_task_has_a_gradient_of_exactly_0(program: Program, moduli: str) -> None:
    """Without decay, its columns of the unembedding stay bit for bit what they were, and its moments stay 0."""
    run = experiment(moduli)
    lanes = Lanes(program.key, batched=False, program=program)
    lane = lanes.admit(run, HYPERPARAMETERS)
    before = lanes.weights(lane)["unembedding"]
    lanes.train(4)
    after, state = lanes.weights(lane)["unembedding"], lanes.state(lane)
    averages = [array for name, array in state.items() if name.startswith("optimizer") and name.endswith("unembedding")]
    assert len(averages) == 3  # both of AdamW's moments, and the gradient filter's average
    for columns, scored in zip(task_slices(MODULI), run.scored, strict=True):
        assert (before[:, columns] != after[:, columns]).all() == scored
        assert (before[:, columns] == after[:, columns]).all() != scored
        assert all(np.any(array[:, columns] != 0) == scored for array in averages)


@pytest.mark.slow
def test_a_subset_trains_as_a_task_that_scores_only_these_moduli(program: Program) -> None:
    lanes = Lanes(program.key, batched=False, program=program)
    lane = lanes.admit(experiment("5"), HYPERPARAMETERS)
    five_alone = experiment(None, task="tests.experiment.user_tasks:FiveAlone")
    reference = Lanes(ProgramKey.of(five_alone, HYPERPARAMETERS), batched=False)
    reference.admit(five_alone, HYPERPARAMETERS)
    record, expected = lanes.train(4)[lane], reference.train(4)[0]
    np.testing.assert_allclose(record.train_loss, expected.train_loss, rtol=1e-5)
    for name, weights in lanes.weights(lane).items():
        np.testing.assert_allclose(weights, reference.weights(0)[name], rtol=1e-4, atol=1e-6)


def test_a_run_is_solved_by_the_tasks_of_its_subset(program: Program) -> None:
    state = program.init(experiment("2,5"), HYPERPARAMETERS)
    row = {name: jnp.ones(3) for name in ("validation_loss", "train_loss")}
    for accuracy, solved in (([1, 0, 1], True), ([1, 1, 0], False), ([1, 1, 1], True)):
        marked = program.mark_ended(
            state, {**row, "validation_accuracy": jnp.asarray(accuracy, jnp.float32)}, program.data["end"]
        )
        assert (int(marked.streak) == 1) == solved


def test_a_state_continues_with_its_subset(program: Program) -> None:
    lanes = Lanes(program.key, batched=False, program=program)
    first = lanes.admit(experiment("2,5"), HYPERPARAMETERS)
    lanes.train(2)
    second = lanes.admit(experiment("2,5"), HYPERPARAMETERS, lanes.state(first))
    assert lanes.state(second)["knobs.task_mask"].tolist() == [1, 0, 1]
    lanes.train(2)
    for name, weights in lanes.weights(first).items():
        assert (weights == lanes.weights(second)[name]).all()
