"""Search spaces, queues, rungs and settings, compared with the paper and with brute force."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from miiii_search.config.overrides import apply_settings, describe_differences, read_config_file, to_tree, validate
from miiii_search.config.presets import PRESETS, get_configuration, get_preset
from miiii_search.config.search_space import Range
from miiii_search.config.study_sections import PRUNING_RULES, Budget, Pruning
from miiii_search.config.study_spec import FORMAT, MAX_GRID, SAMPLERS, StudySpec, rungs
from miiii_search.errors import InvalidSpecError, MiiiiSearchError
from miiii_search.experiment.spec import Annealing, Experiment, Hyperparameters, LinearDecay
from tests.support import SPACE, TINY, examples, make_spec

PAPER_TABLE_1 = {
    "dropout": "0 1/2 1/5 1/10",
    "grokfast_lambda": "0 1/2 2",
    "weight_decay": "0 1/10 1/2 1",
    "d_model": "128 256",
    "learning_rate": "3/10000 1/10000",
    "n_heads": "4 8",
}
"""Table 1, copied from the paper."""


def paper_grid() -> list[tuple[float, ...]]:
    return list(itertools.product(*([float(Fraction(x)) for x in text.split()] for text in PAPER_TABLE_1.values())))


def demo_with(*edits: str) -> StudySpec:
    return apply_settings(StudySpec, to_tree(get_preset("demo").spec), edits)


# Presets


@pytest.mark.parametrize("name", ["paper", "authors-code"])
def test_table_1(name: str) -> None:
    spec = get_preset(name).spec
    points = [tuple(point[key] for key in PAPER_TABLE_1) for point, _ in spec.queue()]
    assert len(points) == spec.n_trials == 384
    assert sorted(points) == sorted(paper_grid())
    assert len({(spec.run_at(point, 0)[1].d_model, spec.run_at(point, 0)[1].n_heads) for point in spec.grid()}) == 4


def test_paper_preset_is_the_papers_experiment() -> None:
    experiment = get_preset("paper").spec.experiment
    assert (experiment.task, experiment.p, experiment.epochs) == ("miiii", 113, 65536)
    assert (experiment.n_train, experiment.n_validation, experiment.n_test) == (3830, 1000, 7939)
    assert (experiment.train_fraction, experiment.grokfast_alpha, experiment.dropout_mask) == (0.3, 0.98, "sample")


def test_authors_code_differs_in_the_readings_of_the_public_code() -> None:
    paper, code = (get_preset(name).spec.experiment for name in ("paper", "authors-code"))
    readings = {
        "train_fraction": 0.5,
        "validation_samples": 5385,
        "dropout_mask": "batch",
        "initialisation": "public-code",
        "grokfast_start": "zero",
        "loss_reduction": "mean",
    }
    assert paper.model_copy(update=readings) == code


@pytest.mark.parametrize(("preset", "name"), [("paper", "paper-best"), ("paper", None)])
def test_table_2(preset: str, name: str | None) -> None:
    experiment, best = get_configuration(preset, name)
    assert experiment == get_preset(preset).spec.experiment
    assert best == Hyperparameters(
        dropout=0.1, grokfast_lambda=0.5, weight_decay=1 / 3, d_model=256, learning_rate=3e-4, n_heads=4
    )


def test_demo_preset_is_small() -> None:
    preset = get_preset("demo")
    assert 6 <= preset.spec.n_trials <= 12
    assert preset.spec.experiment.task == "nanda" and preset.spec.experiment.p < 60


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_default_configuration(name: str) -> None:
    assert PRESETS[name].spec.preset == name
    assert get_configuration(name, None)[1] in PRESETS[name].configurations.values()


def test_unknown_presets_and_configurations() -> None:
    with pytest.raises(MiiiiSearchError, match="no preset `papre`; did you mean `paper`"):
        get_preset("papre")
    with pytest.raises(MiiiiSearchError, match="no configuration `paper-bset`; did you mean `paper-best`"):
        get_configuration("paper", "paper-bset")


# The queue


def test_the_seed_shuffles_the_queue() -> None:
    def queue(seed: int) -> list[Any]:
        return make_spec(experiment=TINY.model_copy(update={"seed": seed})).queue()

    grid = [(dict(zip(SPACE, point, strict=True)), 0) for point in itertools.product(*SPACE.values())]
    assert queue(1) == queue(1)
    assert len({repr(queue(seed)) for seed in range(10)}) == 10
    for seed in range(10):
        assert sorted(queue(seed), key=repr) == sorted(grid, key=repr)


def test_replicates() -> None:
    spec = make_spec(replicates=3, experiment=TINY.model_copy(update={"seed": 7}))
    queue = spec.queue()
    assert len(queue) == spec.n_trials == 72
    assert Counter(repr(point) for point, _ in queue) == Counter({repr(point): 3 for point in spec.grid()})
    # One replicate of the whole grid comes before the next.
    assert [replicate for _, replicate in queue] == [0] * 24 + [1] * 24 + [2] * 24
    seeds = {replicate: spec.run_at(point, replicate)[0].seed for point, replicate in queue}
    assert seeds == {0: 7, 1: 8, 2: 9}
    for point, replicate in queue:
        experiment, _ = spec.run_at(point, replicate)
        # All replicates have the same data. They differ in their initial weights and dropout masks.
        assert experiment == spec.experiment.model_copy(update={"seed": 7 + replicate})


@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        (["replicates=3"], 3),
        (["replicates.count=3"], 3),
        (["replicates={count=3}"], 3),
        (["replicates={count=3, top=5}"], {"count": 3, "top": 5}),
        (["replicates.count=3", "replicates.top=5"], {"count": 3, "top": 5}),
        (["replicates.top=5", "replicates.count=3"], {"count": 3, "top": 5}),
        (["replicates=3", "replicates.top=5"], {"count": 3, "top": 5}),
        (["replicates.count=3", "replicates.top=5", "replicates=2"], 2),
        ([], 1),
    ],
)
def test_ways_to_say_how_many_replicates(settings: list[str], stored: Any) -> None:
    """Replicates are stored as a plain number if that is sufficient, as all versions read and write it."""
    spec = demo_with(*settings)
    tree = to_tree(spec)
    assert tree["replicates"] == stored and tree["format"] == FORMAT
    assert validate(StudySpec, tree, "the spec") == spec == validate(StudySpec, tomllib.loads(tomli_w.dumps(tree)), "")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("replicates=0", "replicates.count must be greater than 0, but is 0"),
        ("replicates=many", 'replicates.count must be a valid integer, but is "many"'),
        ("replicates=true", "replicates.count must be a valid integer, but is true"),
        ("replicates=[2, 3]", r"replicates.count must be a valid integer, but is \[2, 3\]"),
        ("replicates.top=0", "replicates.top must be greater than 0, but is 0"),
        ("replicates={count=3, tpo=5}", "unknown key `replicates.tpo`; did you mean `replicates.top`"),
        ("replicates.top=5", "replicates.top = 5 .* set replicates.count to 2 or more"),
    ],
)
def test_replicates_that_cannot_be(setting: str, message: str) -> None:
    with pytest.raises(MiiiiSearchError, match=message) as error:
        demo_with(setting)
    assert "\n" not in str(error.value)


def test_where_only_the_best_get_replicates_the_queue_has_first_runs_alone() -> None:
    spec = make_spec(replicates={"count": 4, "top": 5}, experiment=TINY.model_copy(update={"seed": 7}))
    assert spec.queue() == make_spec(experiment=TINY.model_copy(update={"seed": 7})).queue()
    assert spec.n_trials == 24 + 3 * 5
    assert make_spec(replicates={"count": 4, "top": 100}).n_trials == 4 * 24
    assert make_spec(replicates={"count": 4, "top": 5}, budget=Budget(trials=30)).n_trials == 30
    with pytest.raises(ValueError, match="replicates need sampler = 'grid_ei' or 'grid'; 'tpe' visits"):
        make_spec(sampler="tpe", budget=Budget(trials=3), replicates={"count": 2, "top": 2})


def test_a_spec_s_difference_names_what_of_the_replicates_differs() -> None:
    one, other = make_spec(replicates=2), make_spec(replicates={"count": 3, "top": 5})
    assert describe_differences(one, other) == ["replicates.count is 2, not 3", 'replicates.top is "unset", not 5']


@pytest.mark.parametrize("trials", [1, 5, 24, 100])
def test_the_budget_cuts_the_queue(trials: int) -> None:
    whole = make_spec().queue()
    cut = make_spec(budget=Budget(trials=trials))
    assert cut.queue() == whole[:trials]
    assert cut.n_trials == min(trials, 24)


def test_first_points_come_first_and_once() -> None:
    inside = {"dropout": 0.1, "weight_decay": 1.0, "n_heads": 4, "learning_rate": 1e-3}
    outside = {**inside, "weight_decay": 1 / 3}
    spec = make_spec(first=(outside, inside), replicates=2)
    points = [point for point, _ in spec.queue()]
    assert points[:2] == points[25:27] == [outside, inside]
    assert Counter(map(repr, points)) == Counter({repr(p): 2 for p in [*spec.grid(), outside]})
    assert spec.n_trials == 50
    with pytest.raises(ValueError, match=r"first\[0\] must give a value to each of dropout, weight_decay"):
        make_spec(first=({"dropout": 0.0},))


def test_runs_of_points() -> None:
    spec = make_spec(space={"train_fraction": (0.3, 0.5), "dropout_mask": ("batch",), "d_model": (16, 32)})
    experiment, hyperparameters = spec.run_at({"train_fraction": 0.3, "dropout_mask": "batch", "d_model": 32}, 0)
    assert experiment == spec.experiment.model_copy(update={"train_fraction": 0.3, "dropout_mask": "batch"})
    assert hyperparameters == spec.hyperparameters.model_copy(update={"d_model": 32})


# Rungs


def brute_force_rungs(epochs: int, interval: int) -> list[int]:
    found = {epochs}
    for epoch in range(1, epochs + 1):
        is_power = epoch & (epoch - 1) == 0
        is_one_and_a_half = epoch % 3 == 0 and (epoch // 3) & (epoch // 3 - 1) == 0
        if is_power or is_one_and_a_half:
            found.add(next(e for e in range(epoch, epochs + interval) if e % interval == 0))
    return sorted(found)


@given(epochs=st.integers(1, 3000), every=st.integers(1, 64))
def test_rungs(epochs: int, every: int) -> None:
    experiment = Experiment(p=7, epochs=epochs, evaluate_every=every)
    interval = max(k for k in range(1, epochs + 1) if epochs % k == 0 and k <= every)
    found = rungs(experiment)
    assert found == brute_force_rungs(epochs, interval)
    assert found[-1] == epochs and all(epoch % interval == 0 for epoch in found)


def test_rungs_of_the_paper_are_few() -> None:
    found = rungs(get_preset("paper").spec.experiment)
    assert found[:6] == [16, 32, 48, 64, 96, 128] and found[-2:] == [49152, 65536]
    assert len(found) < 100


def test_pruning_floor() -> None:
    """By default it is a fraction of the epochs, which depends on the rule."""
    spec = make_spec(experiment=make_spec().experiment.model_copy(update={"epochs": 100}))
    assert spec.pruning_floor == 12
    for rule, floor in (("forecast", 12), ("quantile", 25), ("median", 25)):
        assert spec.model_copy(update={"pruning": Pruning(rule=rule)}).pruning_floor == floor
        assert spec.model_copy(update={"pruning": Pruning(rule=rule, min_epochs=0)}).pruning_floor == 0


@pytest.mark.parametrize(("end", "floor"), [(90, 90), (11, 12)])
def test_nothing_is_pruned_before_the_end_of_an_annealing(end: int, floor: int) -> None:
    annealing = Annealing(dropout=LinearDecay(end=end, end_factor=0.5), weight_decay=LinearDecay(end=7, end_factor=0.5))
    spec = StudySpec(experiment=Experiment(p=11, epochs=100, annealing=annealing), space={})
    assert spec.pruning_floor == floor


# Spaces


def test_ranges_need_a_sampler() -> None:
    space = {"learning_rate": Range(low=1e-4, high=1e-2, log=True), "dropout": (0.0, 0.1)}
    with pytest.raises(ValueError, match=r"learning_rate is a range.*sampler = 'tpe'"):
        make_spec(space=space)
    with pytest.raises(ValueError, match=r"needs a budget: set budget\.trials"):
        make_spec(space=space, sampler="tpe")
    spec = make_spec(space=space, sampler="tpe", budget=Budget(trials=30))
    assert (spec.n_trials, spec.is_finite) == (30, False)
    assert make_spec(sampler="tpe", budget=Budget(trials=30)).n_trials == 24  # of lists: each point once
    with pytest.raises(ValueError, match="replicates need sampler = 'grid_ei' or 'grid'; 'tpe' visits"):
        make_spec(sampler="tpe", budget=Budget(trials=3), replicates=2)


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        ({"weight_decay": Range(low=0.0, high=1.0), "dropout": Range(low=0.5, high=1.5)}, "less than 1"),
        ({"n_heads": (2, 3)}, "d_model must be divisible by n_heads, but d_model = 16 and n_heads = 3"),
        ({"train_fraction": (0.5, 0.999)}, "train_fraction = 0.999"),
        ({"epochs": (1, 2)}, "space.epochs cannot be searched over; one of"),
        ({"learning_rat": (1e-3,)}, "space.learning_rat cannot be searched over; did you mean `learning_rate`"),
        ({"dropout_mask": ("sample", "none")}, "sample"),
        ({"weight_decay": (0.5, 1.0, 0.5)}, "space.weight_decay lists 0.5 twice"),
        ({"moduli": ((2, 3), "3, 2")}, "space.moduli lists 2,3 twice"),
        ({"moduli": (4,)}, "moduli names 4, but must name some of"),
        ({"moduli": Range(low=2, high=5)}, "space.moduli is a range, but must be a list of subsets"),
        ({"weight_decay": (1, 1.0)}, "space.weight_decay lists 1.0 twice"),
    ],
)
def test_spaces_that_cannot_be_searched(space: dict[str, Any], complaint: str) -> None:
    sampled = any(isinstance(dimension, Range) for dimension in space.values())
    options = {"sampler": "tpe", "budget": Budget(trials=3)} if sampled else {}
    with pytest.raises(ValueError, match=complaint):
        make_spec(space=space, **options)


def test_a_space_of_subsets() -> None:
    tree = {
        "experiment": {"p": 13, "task": "miiii", "validation_samples": 50},
        "space": {"moduli": ["all", [3, 2], 5, "all but 7"], "dropout": [0.0, 0.1]},
        "first": [{"moduli": [11, 2], "dropout": 0.5}],
    }
    spec = validate(StudySpec, tree, "the test")
    assert spec.space["moduli"] == ("all", "2,3", "5", "all but 7")
    assert len(spec.points()) == 9
    assert spec.first == ({"moduli": "2,11", "dropout": 0.5},)
    scored = [spec.run_at(point, 0)[0].scored for point in spec.points()[:4:2]]
    assert scored == [(True, False, False, False, True), (True,) * 5]
    assert validate(StudySpec, to_tree(spec), "the same") == spec


def test_grids_that_nobody_finishes() -> None:
    many = tuple(k / 1000 for k in range(1000))
    with pytest.raises(ValueError, match=f"1000000 configurations, {MAX_GRID} at most"):
        make_spec(space={"weight_decay": many, "dropout": many})


@pytest.mark.parametrize(("low", "high", "log"), [(1.0, 1.0, False), (2.0, 1.0, False), (0.0, 1.0, True)])
def test_ranges_that_hold_nothing(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match="low must be"):
        Range(low=low, high=high, log=log)


# --set


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("experiment.epochs=256", ("experiment", "epochs"), 256),
        ("experiment.epochs = 1_024 ", ("experiment", "epochs"), 1024),
        ("hyperparameters.learning_rate=3e-4", ("hyperparameters", "learning_rate"), 3e-4),
        ("hyperparameters.learning_rate=1", ("hyperparameters", "learning_rate"), 1.0),
        ("sampler=random", ("sampler",), "random"),
        ("experiment.task='miiii'", ("experiment", "task"), "miiii"),
        ('experiment.task="miiii"', ("experiment", "task"), "miiii"),
        ("space.dropout=[0, 0.25]", ("space", "dropout"), [0, 0.25]),
        ("pruning={rule = 'none', min_epochs = 7}", ("pruning", "rule"), "none"),
        ("pruning.options.lower=0.05", ("pruning", "options", "lower"), 0.05),
        ("first=[{dropout = 0, grokfast_lambda = 0, weight_decay = 1}]", ("first", 0, "weight_decay"), 1),
        ("budget.trials=3", ("budget", "trials"), 3),
    ],
)
def test_settings(setting: str, path: tuple[Any, ...], value: Any) -> None:
    found: Any = to_tree(demo_with(setting, "budget.trials=3"))
    for step in path:
        found = found[step]
    assert found == value and type(found) is type(value)


def test_settings_apply_in_order_and_to_nothing_else() -> None:
    before = demo_with()
    after = demo_with("experiment.epochs=5", "experiment.epochs=512")
    assert after == before.model_copy(update={"experiment": before.experiment.model_copy(update={"epochs": 512})})
    assert describe_differences(before, after) == ["experiment.epochs is 3072, not 512"]
    assert describe_differences(before, before) == describe_differences(before, get_preset("demo").spec) == []


def test_settings_make_a_range() -> None:
    spec = demo_with(
        "space.weight_decay={low=1e-2, high=1, log=true}",
        "sampler=tpe",
        "budget.trials=9",
        "space.dropout.low=0",
        "space.dropout.high=0.5",
    )
    assert spec.space["weight_decay"] == Range(low=1e-2, high=1, log=True)
    assert spec.space["dropout"] == Range(low=0, high=0.5)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("experiment.epoch=5", r"unknown key `experiment\.epoch`; did you mean `experiment\.epochs`"),
        ("epochs=5", r"unknown key `epochs`; did you mean `experiment\.epochs`"),
        ("hyperparameters.lr=1", r"unknown key `hyperparameters\.lr`; one of .*learning_rate"),
        ("pruning.qantile=0.1", r"did you mean `pruning\.quantile`"),
        ("space.weight_dcay=[1]", r"space\.weight_dcay cannot be searched over; did you mean `weight_decay`"),
        ("experiment.epochs=abc", r'experiment\.epochs must be a valid integer, but is "abc"'),
        ("experiment.epochs=5.0", r"experiment\.epochs must be a valid integer, but is 5\.0"),
        ("experiment.epochs='5'", r'experiment\.epochs must be a valid integer, but is "5"'),
        ("experiment.epochs=true", r"experiment\.epochs must be a valid integer, but is true"),
        ("experiment.epochs=0", r"experiment\.epochs must be greater than 0, but is 0"),
        ("experiment.epochs=[5]", r"experiment\.epochs must be a valid integer"),
        ("experiment.task=nada", r"there is no task `nada`; one of miiii, nanda, basis, masked"),
        ("experiment=5", r"experiment must be"),
        ("hyperparameters.learning_rate=1/3", r'learning_rate must be a valid number, but is "1/3"'),
        ("hyperparameters.learning_rate=nan", r"learning_rate must be a finite number"),
        ("hyperparameters.learning_rate=inf", r"learning_rate must be a finite number"),
        ("preset=paper", r"--set preset=paper: `preset` cannot be set; .* choose one with --preset"),
        ("preset.x=1", r"`preset` cannot be set"),
        ("format=1", r"`format` cannot be set"),
        (
            "hyperparameters={weight_decay = 0.1}",
            r"searches over weight_decay; use --set 'space\.weight_decay=\[0\.1\]'",
        ),
        ("hyperparameters.weight_decay=1", r"searches over weight_decay; use --set 'space\.weight_decay=\[1\]'"),
        ("space.weight_decay=[]", r"space\.weight_decay must have at least 1 item"),
        ("space.weight_decay=1", r"space\.weight_decay must be"),
        ("space.weight_decay=['a']", r"weight_decay must be a valid number"),
        (
            "space.weight_decay=3",
            r"space\.weight_decay must be a list of values or {low = .*}, but is 3",
        ),
        ("space.weight_decay={low = 1}", r"`space\.weight_decay\.high` is missing"),
        ("space.weight_decay={low = 'a', high = 2}", r'space\.weight_decay\.low must be a valid number, but is "a"'),
        ("space.weight_decay=[0.5, true]", r"space\.weight_decay\.1 must be a valid number, but is true"),
        ("space.weight_decay=text", r"space\.weight_decay must be a list of values or {low = .*}, but is \"text\""),
        ("pruning.options.percentile=high", r'pruning\.options\.percentile must be a valid number, but is "high"'),
        (
            "space.weight_decay={low = 2, high = 1}",
            r"space\.weight_decay: low must be below high, but low = 2 and",
        ),
        (
            "experiment.annealing.dropout={start = 9, end = 9, end_factor = 0.5}",
            r"experiment\.annealing\.dropout: end must be after start",
        ),
        ("space.weight_decay={low=0, high=1}", r"space\.weight_decay is a range"),
        ("space.weight_decay={low=0, hihg=1}", r"unknown key `space\.weight_decay\.hihg`"),
        ("sampler=tep", r"no sampler `tep`; did you mean `tpe`"),
        ("pruning.rule=medain", r"no pruning\.rule `medain`; did you mean `median`"),
        ("experiment.p=9", r"p must be a prime of at least 5, but p = 9; the nearest is 7"),
        ("epochs", r"needs key=value, but got `epochs`; for example"),
        ("=5", r"unknown key"),
        ("function-=5", r"unknown key `function-`"),
        ("experiment.Range=5", r"unknown key `experiment\.Range`"),
        ("format=2", r"`format` cannot be set"),
    ],
)
def test_settings_that_are_wrong(setting: str, complaint: str) -> None:
    with pytest.raises(InvalidSpecError, match=complaint) as error:
        demo_with(setting)
    assert "\n" not in str(error.value)


KEYS = st.sampled_from(
    ["experiment", "experiment.epochs", "space.weight_decay", "space", "first", "budget", "pruning.options", "preset"]
) | st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["[]", "{}", "[[1]]", "[{}]", "{a=1}", "1e400", "-1", "true", "2024-01-01", "9" * 30, "nan", "''", "[nan]"]
)


@examples(300)
@given(key=KEYS, value=VALUES)
def test_any_setting_is_a_spec_or_a_users_mistake(key: str, value: str) -> None:
    try:
        assert isinstance(demo_with(f"{key}={value}"), StudySpec)
    except MiiiiSearchError as error:
        assert str(error)


# Files

NUMBERS = st.floats(0, 10, allow_subnormal=False) | st.integers(0, 10)
SPACES = st.fixed_dictionaries(
    {},
    optional={
        "dropout": st.lists(st.floats(0, 0.9), min_size=1, max_size=4, unique=True),
        "weight_decay": st.lists(NUMBERS, min_size=1, max_size=4, unique=True),
        "grokfast_lambda": st.lists(NUMBERS, min_size=1, max_size=4, unique=True),
        "n_heads": st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4, unique=True),
        "dropout_mask": st.lists(st.sampled_from(["sample", "batch"]), min_size=1, max_size=2, unique=True),
        "grokfast_alpha": st.builds(dict, low=st.floats(0, 0.4), high=st.floats(0.5, 0.9), log=st.just(False)),
    },
).filter(bool)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    space = draw(SPACES)
    return {
        "experiment": {
            "p": draw(st.sampled_from([5, 7, 31, 113])),
            "task": draw(st.sampled_from(["miiii", "nanda", "basis"])),
            "epochs": draw(st.integers(1, 10**6)),
            "train_fraction": draw(st.floats(0.2, 0.8)),
            "seed": draw(st.integers(0, 2**31 - 1)),
        },
        "space": space,
        "sampler": draw(st.sampled_from(["tpe", "random"] if "grokfast_alpha" in space else SAMPLERS)),
        "budget": {"trials": draw(st.integers(1, 1000))},
        "pruning": {"rule": draw(st.sampled_from(PRUNING_RULES)), "quantile": draw(st.floats(0.01, 0.99))},
        "lease_seconds": draw(st.floats(1, 1e6) | st.integers(1, 100)),
    }


@examples(60)
@given(tree=trees(), kind=st.sampled_from(["toml", "json"]))
def test_spec_files_round_trip(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], kind: str) -> None:
    spec = validate(StudySpec, tree, "tree")
    path = tmp_path_factory.mktemp("spec") / f"spec.{kind}"
    path.write_text((tomli_w.dumps if kind == "toml" else json.dumps)(to_tree(spec)), encoding="utf-8")
    again = validate(StudySpec, read_config_file(path), str(path))
    assert again == spec and describe_differences(again, spec) == []
    # The order of the points and the types of their values are kept.
    if spec.is_grid_search:
        assert repr(again.queue()) == repr(spec.queue())


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("spec.toml", "epochs = ", r"spec\.toml is not TOML"),
        ("spec.json", "{", r"spec\.json is not JSON"),
        ("spec.json", "[1]", r"must hold a table of keys and values, but holds a list"),
        ("spec.toml", "[space]\ndropout = [0.0]\n[experimnt]\np = 7", r"`experimnt`; did you mean `experiment`"),
        ("spec.toml", "[experiment]\np = 7", r"`space` is missing"),
        ("spec.toml", "format = 3\n[space]\ndropout = [0.0]", r"format must be 2, but is 3"),
        ("spec.toml", "[space]\ndropout = [true]", r"dropout"),
        ("spec.toml", b"\xff\xfe", r"spec\.toml is not TOML"),
    ],
)
def test_spec_files_that_are_wrong(tmp_path: Path, name: str, text: str | bytes, complaint: str) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(MiiiiSearchError, match=complaint) as error:
        validate(StudySpec, read_config_file(path), str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_earlier_name_of_end_factor_is_read_and_not_written(tmp_path: Path) -> None:
    """Stored studies, archives and files of earlier versions call it `share`."""
    spec = validate(StudySpec, read_config_file(Path(__file__).with_name("annealing_with_share.toml")), "file")
    assert spec.experiment.annealing == Annealing(
        dropout=LinearDecay(start=2, end=8, end_factor=0.25), learning_rate=LinearDecay(end=9, end_factor=0)
    )
    tree = to_tree(spec)
    assert tree["experiment"]["annealing"] == {
        "dropout": {"start": 2, "end": 8, "end_factor": 0.25},
        "learning_rate": {"start": 0, "end": 9, "end_factor": 0},
    }
    assert validate(StudySpec, tree, "again") == spec
    new = apply_settings(StudySpec, tree, ["experiment.annealing.dropout={end=8, share=0.5}"])
    assert describe_differences(spec, new) == [
        "experiment.annealing.dropout.end_factor is 0.25, not 0.5",
        "experiment.annealing.dropout.start is 2, not 0",
    ]
    with pytest.raises(InvalidSpecError, match="share is the earlier name of end_factor, and both are given"):
        apply_settings(StudySpec, tree, ["experiment.annealing.dropout.share=0.5"])


def test_spec_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(MiiiiSearchError, match=r"cannot read .*give the path of a TOML or JSON file"):
            read_config_file(path)


def test_what_is_searched_over_need_not_be_valid_by_itself() -> None:
    """No run has the base value of a dimension, so it need not be valid on its own."""
    tree = {
        "experiment": {"p": 7},
        "hyperparameters": {"d_model": 96, "n_heads": 3},
        "space": {"d_model": [96, 192]},
    }
    spec = validate(StudySpec, tree, "tree")
    assert validate(StudySpec, to_tree(spec), "again").queue() == spec.queue()


@pytest.mark.parametrize(("old", "new"), [("model", "grid_ei"), ("queue", "grid"), ("tpe", "tpe")])
def test_a_spec_of_format_1_is_read_as_the_present_one(old: str, new: str) -> None:
    present = make_spec(sampler=new, budget=Budget(trials=3))
    tree = {**to_tree(present), "format": 1, "sampler": old}
    assert validate(StudySpec, tree, "the study's spec") == present
    assert to_tree(present)["format"] == FORMAT == 2
