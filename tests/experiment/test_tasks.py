"""Labels, digits and splits, compared with brute force over Python integers."""

import random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from miiii_search.experiment.builtin_tasks import BUILTIN_TASKS
from miiii_search.experiment.digits import digits
from miiii_search.experiment.primes import primes_below
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.tasks import Splits, labels, make_splits

TASKS = tuple(BUILTIN_TASKS)


def is_prime(n: int) -> bool:
    return n >= 2 and not any(n % k == 0 for k in range(2, n))


def all_samples(p: int) -> list[tuple[int, int]]:
    """Return (x0, x1) for n = 0 … p² − 1, found by search instead of division."""
    by_number = {x0 + x1 * p: (x0, x1) for x1 in range(p) for x0 in range(p)}
    return [by_number[n] for n in range(p * p)]


def remainders(p: int) -> list[list[int]]:
    return [[n % q for q in range(2, p) if is_prime(q)] for n in range(p * p)]


def parts(splits: Splits) -> list[set[int]]:
    return [set(split.n.tolist()) for split in (splits.train, splits.validation, splits.test)]


OPERATIONS = {
    "subtraction": lambda x, y, p: x - y,
    "multiplication": lambda x, y, p: x * y,
    "sum-of-squares": lambda x, y, p: x * x + y * y,
    "cubic": lambda x, y, p: x * x * x + x * y,
}
"""The operations of Power et al. (arXiv 2201.02177) on Python integers, and multiplication."""

LARGE = pytest.param(113, marks=pytest.mark.slow)


@pytest.mark.parametrize("p", [13, 113])
def test_digits(p: int) -> None:
    assert digits(p).tolist() == [list(sample) for sample in all_samples(p)]


@pytest.mark.parametrize("p", [13, 113])
def test_nanda_is_the_sum_of_the_digits(p: int) -> None:
    expected = [[(x0 + x1) % p] for x0, x1 in all_samples(p)]
    assert labels(Experiment(p=p, task="nanda")).tolist() == expected


@pytest.mark.parametrize("p", [5, 13, 113, 1999])
@pytest.mark.parametrize("task", OPERATIONS)
def test_operations(p: int, task: str) -> None:
    """At p = 1999, cubes do not fit into 32 bits. Some of the samples are compared there."""
    y = labels(Experiment(p=p, task=task))
    assert y.shape == (p * p, 1)
    for n in range(p * p - 1, -1, -max(1, p * p // 20000)):
        assert y[n, 0] == OPERATIONS[task](n % p, n // p, p) % p


@pytest.mark.parametrize("p", [5, 13, 113])
def test_division_is_the_inverse_of_multiplication(p: int) -> None:
    """The quotient is the only z with z · y = x modulo p; where y = 0, the label is 0."""
    quotients = {(z * y % p, y): z for y in range(1, p) for z in range(p)}
    expected = [[quotients.get((x, y), 0)] for x, y in all_samples(p)]
    assert labels(Experiment(p=p, task="division")).tolist() == expected


@pytest.mark.parametrize("p", [13, LARGE])
@pytest.mark.parametrize("task", ["miiii", "masked"])
def test_miiii_and_masked_are_the_remainders(p: int, task: str) -> None:
    assert labels(Experiment(p=p, task=task)).tolist() == remainders(p)


@pytest.mark.parametrize("p", [5, 13, LARGE])
def test_nanda_is_a_thirtieth_task(p: int) -> None:
    experiment = Experiment(p=p, task="miiii+nanda")
    expected = [[*row, (x0 + x1) % p] for row, (x0, x1) in zip(remainders(p), all_samples(p), strict=True)]
    assert labels(experiment).tolist() == expected
    assert experiment.classes == experiment.task_moduli == (*Experiment(p=p).task_moduli, p)
    assert len(Experiment(task="miiii+nanda").classes) == 30


@pytest.mark.parametrize("p", [5, 13, LARGE])
def test_divisible_is_one_where_q_divides_n(p: int) -> None:
    multiples = {q: set(range(0, p * p, q)) for q in range(2, p) if is_prime(q)}
    experiment = Experiment(p=p, task="divisible")
    assert labels(experiment).tolist() == [[int(n in of_q) for of_q in multiples.values()] for n in range(p * p)]
    assert experiment.task_moduli == tuple(multiples)
    assert set(experiment.classes) == {2}


@pytest.mark.parametrize("p", [13, LARGE])
def test_basis_permutes_whole_rows(p: int) -> None:
    expected = remainders(p)
    rows = labels(Experiment(p=p, task="basis")).tolist()
    assert sorted(rows) == sorted(expected)
    moved = sum(row != other for row, other in zip(rows, expected, strict=True))
    assert moved > 0.9 * p * p


def test_basis_is_determined_by_data_seed_alone() -> None:
    base = labels(Experiment(p=13, task="basis"))
    same = labels(Experiment(p=13, task="basis", seed=5, train_fraction=0.5, epochs=100))
    other = labels(Experiment(p=13, task="basis", data_seed=1))
    assert (base == same).all()
    assert (base != other).any()


def test_the_permutation_of_basis_is_not_that_of_the_splits() -> None:
    # At p = 13 a row identifies its n (Chinese remainder theorem), so the rows reveal the permutation.
    number = {tuple(row): n for n, row in enumerate(remainders(13))}
    experiment = Experiment(p=13, task="basis")
    permutation = [number[tuple(row)] for row in labels(experiment).tolist()]
    assert sorted(permutation) == list(range(169))
    order = np.concatenate([split.n for split in vars(make_splits(experiment)).values()])
    assert np.mean(order == permutation) < 0.1


def test_basis_loses_the_relation_to_the_digits() -> None:
    # x0 + x1 has the parity of n, since p is odd. In `basis` it is unrelated to the label of q = 2.
    x, y = digits(113), labels(Experiment(task="basis"))
    share = np.mean((x.sum(axis=1) % 2) == y[:, 0])
    assert abs(share - 0.5) < 5 * 0.5 / 113


def test_the_paper_has_29_tasks_of_1480_classes() -> None:
    expected = [q for q in range(113) if is_prime(q)]
    assert list(Experiment().task_moduli) == expected
    assert len(expected) == 29
    assert sum(expected) == 1480
    assert Experiment(task="nanda").task_moduli == (113,)


def test_masked_scores_all_but_four() -> None:
    experiment = Experiment(p=13, task="masked")
    assert [q for q, scored in zip(experiment.task_moduli, experiment.scored, strict=True) if scored] == [11]
    assert Experiment(task="masked").task_moduli == Experiment(task="miiii").task_moduli
    assert sum(Experiment(task="masked").scored) == 25
    assert all(Experiment().scored)


@given(st.integers(-3, 400))
def test_primes_below(limit: int) -> None:
    assert list(primes_below(limit)) == [n for n in range(limit) if is_prime(n)]


@pytest.mark.parametrize("task", TASKS)
def test_split_sizes_of_the_paper(task: str) -> None:
    splits = make_splits(Experiment(task=task))
    assert [len(part) for part in parts(splits)] == [3830, 1000, 7939]


@pytest.mark.parametrize("task", TASKS)
def test_split_rows_belong_together(task: str) -> None:
    experiment = Experiment(p=13, task=task)
    splits, y = make_splits(experiment), labels(experiment)
    samples = all_samples(13)
    for split in (splits.train, splits.validation, splits.test):
        assert split.x.tolist() == [list(samples[n]) for n in split.n]
        assert (split.y == y[split.n]).all()


def test_splits_depend_on_data_seed_and_size_alone() -> None:
    base = make_splits(Experiment(p=13))
    changed = Experiment(
        p=13, task="nanda", seed=7, epochs=64, evaluate_every=3, dropout_mask="batch", grokfast_alpha=0.5
    )
    for split, other in zip(vars(base).values(), vars(make_splits(changed)).values(), strict=True):
        assert (split.n == other.n).all()
    assert parts(base) != parts(make_splits(Experiment(p=13, data_seed=1)))


def test_splits_are_mixed() -> None:
    """Each split contains all digits about equally often, unlike a cut through sorted samples."""
    for split in vars(make_splits(Experiment(p=113))).values():
        for column in split.x.T:
            counts = np.bincount(column, minlength=113)
            assert abs(counts - len(split.n) / 113).max() < 6 * np.sqrt(len(split.n) / 113)


@given(
    p=st.sampled_from([5, 7, 11, 13, 17, 19, 23]),
    train_fraction=st.floats(0.01, 0.99),
    validation_samples=st.none() | st.integers(1, 300),
    data_seed=st.integers(0, 2**31 - 1),
)
def test_splits_partition_the_samples(
    p: int, train_fraction: float, validation_samples: int | None, data_seed: int
) -> None:
    n_train = int(train_fraction * p * p + 1e-6)
    left = p * p - n_train
    n_validation = min(1000, left // 2) if validation_samples is None else validation_samples
    assume(n_train >= 1 and n_validation >= 1 and left - n_validation >= 1)
    experiment = Experiment(
        p=p, train_fraction=train_fraction, validation_samples=validation_samples, data_seed=data_seed
    )
    splits = make_splits(experiment)
    train, validation, test = parts(splits)
    assert [len(train), len(validation), len(test)] == [n_train, n_validation, left - n_validation]
    assert train | validation | test == set(range(p * p))
    # No sample occurs twice, since the sizes of the sets add up to p².
    assert sum(len(split.n) for split in vars(splits).values()) == p * p


@pytest.mark.parametrize("data_seed", random.Random(0).sample(range(2**31), 3))
def test_splits_repeat(data_seed: int) -> None:
    experiment = Experiment(p=11, data_seed=data_seed)
    assert parts(make_splits(experiment)) == parts(make_splits(experiment))
