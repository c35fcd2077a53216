"""Subsets of the moduli, as text and as which tasks count."""

from typing import Any

import pytest

from miiii_search.experiment.spec import Experiment


@pytest.mark.parametrize(
    ("moduli", "text"),
    [
        ([5, 2, 3], "2,3,5"),
        ((7,), "7"),
        (11, "11"),
        ("3, 2", "2,3"),
        ([2, 2], "2"),
        ("all", "all"),
        ("all but 7", "all but 7"),
        ("all but 5,3", "all but 3,5"),
    ],
)
def test_there_is_one_text_for_every_subset(moduli: Any, text: str) -> None:
    experiment = Experiment(p=13, moduli=moduli)
    assert experiment.moduli == text
    assert Experiment(p=13, moduli=text) == experiment


@pytest.mark.parametrize(
    ("moduli", "scored"),
    [
        (None, [2, 3, 5, 7, 11]),
        ("all", [2, 3, 5, 7, 11]),
        ("2", [2]),
        ("3,11", [3, 11]),
        ("all but 7", [2, 3, 5, 11]),
        ("all but 2,3,5,7", [11]),
        ("2,3,5,7,11", [2, 3, 5, 7, 11]),
    ],
)
def test_the_tasks_of_a_subset_are_scored(moduli: str | None, scored: list[int]) -> None:
    experiment = Experiment(p=13, moduli=moduli)
    assert experiment.task_moduli == (2, 3, 5, 7, 11)
    assert [q for q, counts in zip(experiment.task_moduli, experiment.scored, strict=True) if counts] == scored


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"moduli": [4]}, "moduli names 4, but must name some of 2, 3, 5, 7, 11"),
        ({"moduli": "all but 13"}, "moduli names 13, but must name some of 2, 3, 5, 7, 11"),
        ({"moduli": "2", "task": "masked"}, "moduli names 2, but must name some of 11"),
        ({"moduli": "2", "task": "nanda"}, "moduli names 2, but must name some of 13"),
        ({"moduli": []}, "moduli must name at least one modulus"),
        ({"moduli": "all but 2,3,5,7,11"}, "moduli = 'all but 2,3,5,7,11' leaves no task"),
        ({"moduli": ""}, "moduli must be 'all', a list such as"),
        ({"moduli": "none"}, "text such as 'all but 7', but is 'none'"),
        ({"moduli": "all but"}, "text such as 'all but 7', but is 'all but'"),
        ({"moduli": [2.0]}, "moduli\n  Input should be a valid string"),
    ],
)
def test_subsets_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Experiment(p=13, **fields)
