"""Conditional dimensions, compared with the whole product, from which unused values are deleted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from miiii_search.config.conditional import count_points, enumerate_points, used_part
from miiii_search.config.overrides import apply_settings, to_tree, validate
from miiii_search.config.presets import get_preset
from miiii_search.config.search_space import point_key
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import InvalidSpecError
from miiii_search.experiment.hyperparameters import USED_ONLY_WITH, is_used
from miiii_search.experiment.spec import Hyperparameters
from miiii_search.storage.notes import describe

SPACE: dict[str, Any] = {
    "muon_learning_rate": [0.01, 0.02],
    "dropout": [0.0, 0.1],
    "lion_beta1": [0.9, 0.95, 0.99],
    "optimizer": ["adamw", "muon", "lion"],
    "muon_weight_decay": [0.1, 0.2, 0.5],
    "weight_ceiling_ratio": [1.0, 2.0],
    "learning_rate": [1e-3, 3e-4],
    "weight_ceiling": ["none", "row"],
}


def by_hand(point: dict[str, Any]) -> dict[str, Any]:
    """Delete what the run of a point does not use."""
    optimizer = point["optimizer"]
    unused = {name for name in point if name.startswith(("muon_", "lion_")) and not name.startswith(optimizer)}
    if optimizer == "lion":
        unused.add("learning_rate")
    if point["weight_ceiling"] == "none":
        unused.add("weight_ceiling_ratio")
    return {name: value for name, value in point.items() if name not in unused}


def test_a_grid_has_every_point_that_differs_once() -> None:
    spec = validate(StudySpec, {"space": SPACE}, "test")
    product = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
    expected = {point_key(by_hand(point)) for point in product}
    keys = [point_key(point) for point in spec.grid()]
    assert len(keys) == len(set(keys)) and set(keys) == expected
    # 2 dropouts, and no ceiling or two: AdamW has 2 points, Muon 2 · 2 · 3, Lion 3.
    assert len(keys) == spec.n_trials == 2 * 3 * (2 + 12 + 3)
    assert sorted(map(point_key, (point for point, _ in spec.full_queue()))) == sorted(keys)
    assert count_points(SPACE, {}) == len(keys)
    assert all(used_part(point, {}) == by_hand(point) for point in product)


def test_without_conditions_a_grid_is_the_product() -> None:
    space: dict[str, list[Any]] = {"dropout": [0.0, 0.1], "muon_momentum": [0.8, 0.9], "n_heads": [4, 8]}
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    assert enumerate_points(space, {"optimizer": "muon"}) == points
    assert count_points(space, {"optimizer": "muon"}) == len(points)


def test_runs_have_defaults_where_a_value_is_unused() -> None:
    spec = validate(StudySpec, {"space": SPACE, "hyperparameters": {"lion_beta2": 0.5}}, "test")
    for point in spec.grid():
        _, hyperparameters = spec.run_at(point, 0)
        for name in SPACE:
            expected = point.get(name, Hyperparameters.model_fields[name].default)
            assert getattr(hyperparameters, name) == expected
        assert hyperparameters.lion_beta2 == 0.5  # fixed, not searched over


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["space.muon_momentum=[0.9, 0.95]"], "space.muon_momentum is used only with optimizer = muon"),
        (["space.weight_ceiling_ratio=[1.0]"], "weight_ceiling = row or matrix, which no point has"),
        (["hyperparameters.optimizer=lion"], "space.weight_decay is used only with optimizer = adamw or muon"),
        (
            ['space.optimizer=["adamw"]', "space.muon_momentum=[0.9]"],
            "set space.optimizer or hyperparameters.optimizer",
        ),
    ],
)
def test_a_dimension_that_no_point_uses_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(InvalidSpecError, match="used only with") as error:
        apply_settings(StudySpec, to_tree(get_preset("demo").spec), settings)
    assert message in str(error.value)


def test_first_points_have_the_dimensions_that_they_use() -> None:
    space = {"optimizer": ["adamw", "muon"], "muon_momentum": [0.9, 0.95], "dropout": [0.0]}
    adamw, muon = {"optimizer": "adamw", "dropout": 0.0}, {"optimizer": "muon", "muon_momentum": 0.8, "dropout": 0.0}
    spec = validate(StudySpec, {"space": space, "first": [adamw, muon]}, "test")
    assert spec.points()[:2] == [adamw, muon]
    assert len(spec.points()) == spec.n_trials == 3 + 1  # the point of Muon is not in the grid
    for bad in ({**adamw, "muon_momentum": 0.9}, {"optimizer": "muon", "dropout": 0.0}):
        with pytest.raises(InvalidSpecError, match="must give a value to each of optimizer"):
            validate(StudySpec, {"space": space, "first": [bad]}, "test")


def test_the_condition_is_in_the_description_of_a_study() -> None:
    spec = validate(StudySpec, {"space": SPACE}, "test")
    assert "- muon_learning_rate: 0.01, 0.02 (only with optimizer = muon)\n" in describe(spec)
    assert "- dropout: 0.0, 0.1\n" in describe(spec)
    only_muon = {"hyperparameters": {"optimizer": "muon"}, "space": {"muon_momentum": [0.9, 0.95]}}
    assert "- muon_momentum: 0.9, 0.95\n" in describe(validate(StudySpec, only_muon, "test"))


def test_conditions_depend_on_hyperparameters_without_conditions() -> None:
    for name, (other, values) in USED_ONLY_WITH.items():
        assert other in Hyperparameters.model_fields and other not in USED_ONLY_WITH
        assert name in Hyperparameters.model_fields
        assert is_used(name, {other: values[0]})


def test_options_that_are_off_are_left_out_of_files() -> None:
    """So earlier versions read them."""
    assert to_tree(Hyperparameters()).keys() == {
        "dropout",
        "grokfast_lambda",
        "weight_decay",
        "d_model",
        "learning_rate",
        "n_heads",
    }
    muon = Hyperparameters(optimizer="muon", muon_momentum=0.9)
    assert validate(Hyperparameters, to_tree(muon), "test") == muon
