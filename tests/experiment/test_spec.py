"""Validation of experiments, its messages, and derived values."""

import re
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from miiii_search.experiment.primes import primes_below
from miiii_search.experiment.spec import Experiment, Hyperparameters
from tests.support import examples


def refuses(words: str, make: type[Experiment] | type[Hyperparameters], **fields: Any) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        make(**fields)


@pytest.mark.parametrize(
    ("p", "nearest"), [(4, 5), (6, 5), (1, 5), (0, 5), (-7, 5), (2, 5), (3, 5), (9, 7), (91, 89), (1998, 1997)]
)
def test_p_must_be_prime(p: int, nearest: int) -> None:
    refuses(f"p must be a prime of at least 5, but p = {p}; the nearest is {nearest}", Experiment, p=p)


def test_p_has_a_limit() -> None:
    assert Experiment(p=1999).p == 1999
    refuses("less than or equal to 1999", Experiment, p=2003)


@pytest.mark.parametrize("p", [5, 7, 11])
def test_masked_needs_a_task_to_score(p: int) -> None:
    refuses(f"needs p > 11, but p = {p}; use p = 13 or more", Experiment, p=p, task="masked")
    assert any(Experiment(p=13, task="masked").scored)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"train_fraction": 0.001}, "train_fraction = 0.001 of 25 samples leaves none to train on; raise it"),
        ({"train_fraction": 0.999}, "leaves 1, but validation and test need one each; lower it"),
        ({"validation_samples": 18}, "7 to train leave 18 and validation_samples = 18; use 17 at most"),
        ({"validation_samples": 1000}, "use 17 at most"),
        ({"validation_samples": 0}, "greater than 0"),
        ({"train_fraction": 0.0}, "greater than 0"),
        ({"train_fraction": 1.0}, "less than 1"),
        ({"train_fraction": float("nan")}, "finite number"),
    ],
)
def test_every_split_needs_a_sample(fields: dict[str, Any], words: str) -> None:
    refuses(words, Experiment, p=5, **fields)


def test_the_suggested_limit_is_possible() -> None:
    experiment = Experiment(p=5, validation_samples=17)
    assert (experiment.n_train, experiment.n_validation, experiment.n_test) == (7, 17, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"d_model": 130}, "d_model must be divisible by n_heads, but d_model = 130 and n_heads = 4; n_heads = 2"),
        ({"d_model": 4, "n_heads": 6}, "n_heads = 4 would do"),
        ({"dropout": 1.0}, "less than 1"),
        ({"dropout": -0.1}, "greater than or equal to 0"),
        ({"learning_rate": 0.0}, "greater than 0"),
        ({"learning_rate": float("inf")}, "finite number"),
        ({"weight_decay": -1.0}, "greater than or equal to 0"),
        ({"grokfast_lambda": -1.0}, "greater than or equal to 0"),
        ({"n_heads": 0}, "greater than 0"),
        ({"d_model": "256"}, "valid integer"),
        ({"d_model": 256.0}, "valid integer"),
        ({"dropout": "0.1"}, "valid number"),
        ({"width": 256}, "Extra inputs are not permitted"),
    ],
)
def test_hyperparameters(fields: dict[str, Any], words: str) -> None:
    refuses(words, Hyperparameters, **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"p": "113"}, "valid integer"),
        ({"p": 113.0}, "valid integer"),
        ({"p": True}, "valid integer"),
        ({"epochs": 0}, "greater than 0"),
        ({"epochs": None}, "valid integer"),
        ({"evaluate_every": 0}, "greater than 0"),
        ({"task": "miii"}, "there is no task `miii`; one of miiii, nanda, basis, masked"),
        ({"dropout_mask": "row"}, "'sample' or 'batch'"),
        ({"target_accuracy": 1.5}, "less than or equal to 1"),
        ({"solved_evaluations": 0}, "greater than 0"),
        ({"grokfast_alpha": 1.0}, "less than 1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"data_seed": 2**31}, "less than 2147483648"),
        ({"train_share": 0.3}, "Extra inputs are not permitted"),
        ({"annealing": {"dropout": {"end_factor": 0.5}}}, "Field required"),
        (
            {"annealing": {"weight_decay": {"start": 9, "end": 9, "end_factor": 0.5}}},
            "end must be after start, but start = 9 and end = 9",
        ),
        ({"annealing": {"dropout": {"end": 9, "end_factor": 1.0}}}, "less than 1"),
        ({"annealing": {"dropout": {"end": 9, "end_factor": -0.5}}}, "greater than or equal to 0"),
        ({"annealing": {"d_model": {"end": 9, "end_factor": 0.5}}}, "Extra inputs are not permitted"),
    ],
)
def test_experiments(fields: dict[str, Any], words: str) -> None:
    refuses(words, Experiment, **fields)


def test_defaults_are_the_papers() -> None:
    experiment, hyperparameters = Experiment(), Hyperparameters()
    assert (experiment.n_train, experiment.n_validation, experiment.n_test) == (3830, 1000, 7939)
    assert experiment.epochs == 65536
    assert hyperparameters.model_dump() == {
        "dropout": 0.1,
        "grokfast_lambda": 0.5,
        "weight_decay": 1 / 3,
        "d_model": 256,
        "learning_rate": 3e-4,
        "n_heads": 4,
    }


def test_specs_are_values() -> None:
    assert Experiment(p=13) == Experiment(p=13)
    assert hash(Experiment(p=13)) == hash(Experiment(p=13))
    assert len({Experiment(seed=0), Experiment(seed=1), Experiment()}) == 2
    with pytest.raises(ValidationError, match="frozen"):
        Experiment().p = 13
    assert Experiment.model_validate_json(Experiment(p=13).model_dump_json()) == Experiment(p=13)


@given(epochs=st.integers(1, 10**8), evaluate_every=st.integers(1, 5000))
def test_the_last_epoch_is_evaluated(epochs: int, evaluate_every: int) -> None:
    interval = Experiment(epochs=epochs, evaluate_every=evaluate_every).evaluation_interval
    assert 1 <= interval <= evaluate_every
    assert epochs % interval == 0
    # It is the largest: no divisor lies between.
    assert all(epochs % k for k in range(interval + 1, min(evaluate_every, epochs) + 1))


def test_a_changed_copy_derives_its_own_interval() -> None:
    experiment = Experiment(epochs=256)
    assert experiment.evaluation_interval == 16
    assert experiment.model_copy(update={"epochs": 100}).evaluation_interval == 10


@pytest.mark.parametrize("p", [7, 113])
def test_a_share_that_is_a_whole_number_of_samples(p: int) -> None:
    """(k / p²) · p² may be slightly less than k in floats, which must not lose a sample."""
    samples = range(1, p * p - 1)
    assert [Experiment(p=p, train_fraction=k / p**2).n_train for k in samples] == list(samples)


def test_reading_a_spec_loads_no_jax() -> None:
    code = "import sys, miiii_search.experiment.spec; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@examples(30)
@given(st.integers(1, 1500), st.floats(0.001, 1))
def test_an_accuracy_is_at_the_target_from_the_fewest_samples_that_reach_it(n: int, target: float) -> None:
    """This also holds for a target between two numbers of samples, and for accuracies rounded to float32."""
    p = next(q for q in primes_below(200) if q >= 5 and 0.5 * q**2 > n + 2)
    experiment = Experiment(p=p, task="nanda", train_fraction=0.4, validation_samples=n, target_accuracy=target)
    for samples in {0, 1, n - 1, n, *(int(target * n) + k for k in (-1, 0, 1, 2))} & set(range(n + 1)):
        reached = Fraction(samples) >= Fraction(target) * n - Fraction(1, 10**6)
        for rounded in (samples / n, float(np.float32(samples) / np.float32(n))):
            assert (rounded > experiment.accuracy_threshold) == reached
