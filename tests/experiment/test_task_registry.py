"""Tasks by name, and what is said about a task that does not fit."""

import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from miiii_search.config.overrides import apply_settings
from miiii_search.errors import InvalidSpecError
from miiii_search.experiment import task_registry
from miiii_search.experiment.builtin_tasks import BUILTIN_TASKS
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.task_registry import get_task, task_names
from miiii_search.experiment.tasks import labels, make_splits

MODULE = "tests.experiment.user_tasks"
PARITY = f"{MODULE}:Parity"


@pytest.mark.parametrize("name", ["Parity", "instance"])
def test_a_task_of_the_user_is_a_class_or_an_object(name: str) -> None:
    experiment = Experiment(p=7, task=f"{MODULE}:{name}")
    assert (experiment.task_moduli, experiment.classes, experiment.scored) == ((2, 3), (2, 2), (True, False))
    sums = [x0 + x1 for x1 in range(7) for x0 in range(7)]
    assert labels(experiment).tolist() == [[int(s % 2 == 0), int(s % 3 == 0)] for s in sums]
    assert make_splits(experiment).train.y.dtype == "int32"


def test_other_packages_register_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = EntryPoints(
        [
            EntryPoint("parity-of-the-sum", PARITY, "miiii_search.tasks"),
            EntryPoint("miiii", PARITY, "miiii_search.tasks"),
            EntryPoint("elsewhere", PARITY, "another.group"),
        ]
    )

    def entry_points(**selected: Any) -> EntryPoints:
        return registered.select(**selected)

    monkeypatch.setattr(task_registry, "entry_points", entry_points)
    assert task_names() == [*BUILTIN_TASKS, "parity-of-the-sum"]
    assert Experiment(p=7, task="parity-of-the-sum").task_moduli == (2, 3)
    assert get_task("miiii") is BUILTIN_TASKS["miiii"]
    with pytest.raises(ValueError, match="there is no task `elsewhere`"):
        get_task("elsewhere")


def test_the_task_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "own-task.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "my_tasks.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    y = labels(Experiment(p=31, task="my_tasks:Halves"))
    assert y.tolist() == [[int(n % 31 > 15), int(n // 31 > 15), (n % 31 + n // 31) % 31] for n in range(31 * 31)]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("mini", "there is no task `mini`; one of miiii, nanda, .*, or module:object for a task of your own"),
        ("no.such_module:Task", "task no.such_module:Task cannot be loaded: No module named 'no'"),
        (f"{MODULE}:Missing", f"task {MODULE}:Missing cannot be loaded: .* has no attribute 'Missing'"),
        (f"{MODULE}:", f"task {MODULE}: cannot be loaded"),
        (f"{MODULE}:number", f"task {MODULE}:number must be a miiii_search.Task, but is of type int"),
        (f"{MODULE}:Failing", "Failing fails at p = 11: no labels for 11"),
        (f"{MODULE}:WrongShape", r"labels must be an array of integers \[121, 2\] at p = 11, but is int8 \[121, 1\]"),
        (f"{MODULE}:Fractions", r"labels must be an array of integers \[121, 2\] at p = 11, but is float"),
        (f"{MODULE}:TooLarge", "labels of its task 1 must be from 0 to 1 at p = 11, but one is 2"),
        (f"{MODULE}:Negative", "labels of its task 0 must be from 0 to 1 at p = 11, but one is -1"),
        (f"{MODULE}:EqualModuli", r"moduli must differ from each other, but are \(2, 2\)"),
        (f"{MODULE}:OneClass", r"classes must be a tuple of integers of at least 2, but is \(2, 1\)"),
        (f"{MODULE}:TooFewClasses", r"classes must have 2 numbers, one per modulus, but is \(2,\)"),
        (f"{MODULE}:NothingScored", r"scored must be true for a task, but is \(False, False\)"),
        (f"{MODULE}:TooFewScored", r"scored must have 2 booleans, one per modulus, but is \(True,\)"),
        (f"{MODULE}:OnlySeven", "task OnlySeven needs p = 7, but p = 11"),
        ("masked", "task masked leaves out q = 2, 3, 5, 7 and needs p > 11, but p = 11"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Experiment(p=11, task=task)
    with pytest.raises(InvalidSpecError, match=message):
        apply_settings(Experiment, {}, [f"task={task}", "p=11"])
