"""The plan of a study: what it takes at a speed, and how it chooses among predictions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, create_trial

from miiii_search.cli import main
from miiii_search.cli.views.study_status import headline
from miiii_search.config.presets import PRESETS, TABLE_1
from miiii_search.config.search_space import Range
from miiii_search.config.study_sections import Budget, Pruning, Replicates
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.database import open_database
from miiii_search.storage.records import RunningTrial
from miiii_search.study.create import create_study
from miiii_search.study.gpu_predictions import (
    PredictionTable,
    parse_predictions,
    predict_throughput,
    read_predictions,
)
from miiii_search.study.plan import MIN_SPEEDUP, MOST_LANES, SHARES, plan_at_speed, plan_on_gpu, trials_by_width
from miiii_search.study.state import StudyState
from miiii_search.study.status import Status
from miiii_search.training import autotune
from tests.support import make_spec, with_all

PAPER = PRESETS["paper"].spec
PRUNING_PAGE = Path(__file__).parents[2] / "docs" / "research" / "pruning.md"


def program(d_model: int, lanes: int, speed: float, **fields: Any) -> dict[str, Any]:
    """A row of the table, as `bench/gpu_compile.py --table` writes it."""
    fixed = {"target": "big", "precision": "float32", "devices": 1, "memory_per_lane": 10}
    sizes = {"d_model": d_model, "lanes": lanes, "predicted_lane_epochs_per_second": speed}
    return {**fixed, **sizes, "limited_by": "traffic", **fields}


def make_table(*programs: dict[str, Any]) -> PredictionTable:
    """A table of two GPUs, with room for 90 and for 9 lanes of 10 bytes."""
    table = {
        "experiment": {"p": 113, "train_fraction": 0.3, "evaluate_every": 16, "task": "miiii"},
        "assumptions": {"memory_share": 0.9},
        "targets": {"big": {"name": "NVIDIA Big", "memory": 1000}, "gtx100": {"name": "NVIDIA Small", "memory": 100}},
        "programs": list(programs),
    }
    return parse_predictions(json.dumps(table))


TABLE = make_table(
    program(128, 32, 2000.0),
    program(128, 1, 500.0),
    program(128, 8, 1500.0),
    program(128, 128, 9000.0),
    program(256, 8, 1000.0),
    program(256, 32, 1040.0),  # less than 5 % faster
    program(256, 8, 1.0, precision="bf16"),
    program(256, 8, 4000.0, devices=4),
    program(128, 8, 100.0, target="gtx100"),
    program(256, 8, 50.0, target="gtx100", memory_per_lane=100),
)


def test_the_time_is_that_of_every_width() -> None:
    plan = plan_on_gpu(PAPER, "big", table=TABLE)
    assert [(w.d_model, w.trials, w.lanes_that_fit, w.lanes) for w in plan.widths] == [
        (128, 192, 90, 32),  # 128 lanes do not fit
        (256, 192, 90, 8),
    ]
    assert plan.gpu_seconds == pytest.approx(192 * 65536 / 2000 + 192 * 65536 / 1000)
    assert plan.seconds(0.5) == pytest.approx(plan.gpu_seconds / 2)
    assert plan.widths[0].trials_per_hour(65536) == pytest.approx(3600 * 2000 / 65536)
    four = plan_on_gpu(PAPER, "big", gpus=4, table=TABLE)
    assert four.gpu_seconds == plan.gpu_seconds and four.seconds() == pytest.approx(plan.seconds() / 4)


def test_lanes_are_limited_by_trials_and_by_the_option() -> None:
    few = plan_on_gpu(PAPER.model_copy(update={"budget": Budget(trials=14)}), "big", table=TABLE)
    assert [(w.trials, w.lanes) for w in few.widths] == [(7, 1), (7, 7)]  # of 1 and 8 lanes
    # An epoch of 7 lanes takes as long as one of 8.
    assert few.widths[1].lane_epochs_per_second == pytest.approx(1000 * 7 / 8)
    assert [w.lanes for w in plan_on_gpu(PAPER, "big", lanes=8, table=TABLE).widths] == [8, 8]


def test_a_lane_that_does_not_fit() -> None:
    with pytest.raises(MiiiiSearchError, match="not one lane of d_model = 256 fits into the memory of an NVIDIA Small"):
        plan_on_gpu(PAPER, "gtx100", table=TABLE)


def test_a_gpu_is_found_by_the_end_of_its_name() -> None:
    assert TABLE.gpu("100").key == TABLE.gpu("GTX100").key == "gtx100"
    with pytest.raises(MiiiiSearchError, match=r"--gpu may be big, gtx100; .*--lane-epochs-per-second"):
        TABLE.gpu("tpu")
    with pytest.raises(MiiiiSearchError):
        TABLE.gpu("")


def test_time_and_memory_are_in_proportion_to_the_samples() -> None:
    half = PAPER.model_copy(update={"experiment": Experiment(train_fraction=0.9)})
    plan, usual = plan_on_gpu(half, "big", table=TABLE), plan_on_gpu(PAPER, "big", table=TABLE)
    factor = Experiment(train_fraction=0.9).n_train / Experiment().n_train
    assert plan.widths[0].lanes_that_fit == int(900 / (10 * factor)) == 29
    assert plan.widths[0].lanes == 8  # 32 do not fit
    assert plan.widths[1].lane_epochs_per_second == pytest.approx(usual.widths[1].lane_epochs_per_second / factor)


@pytest.mark.parametrize("fields", [{"p": 31}, {"task": "nanda"}, {"precision": "tf32"}])
def test_what_was_not_compiled_is_not_predicted(fields: dict[str, Any]) -> None:
    spec = PAPER.model_copy(update={"experiment": Experiment.model_validate(fields)})
    with pytest.raises(MiiiiSearchError, match=r"there is no prediction for p = .*--lane-epochs-per-second"):
        plan_on_gpu(spec, "big", table=TABLE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hyperparameters": Hyperparameters(optimizer="muon")}, "optimizer=muon"),
        ({"hyperparameters": Hyperparameters(temperature=2.0)}, "temperature"),
        ({"space": {**PAPER.space, "optimizer": ["adamw", "lion"]}}, "optimizer=lion"),
    ],
)
def test_programs_that_were_not_compiled_are_not_predicted(changes: dict[str, Any], said: str) -> None:
    """A run with Muon is not as fast as one with AdamW, which is what the table knows."""
    spec = PAPER.model_copy(update=changes)
    with pytest.raises(MiiiiSearchError, match=f"no prediction for programs with {said}; .*--lane-epochs-per-second"):
        plan_on_gpu(spec, "big", table=TABLE)
    assert predict_throughput(spec, [running("a", 128)] * 8, [finished("a", "gpu (NVIDIA Big)")], TABLE) is None


def test_trials_of_each_width() -> None:
    assert trials_by_width(PAPER) == {128: 192, 256: 192}
    assert trials_by_width(PRESETS["demo"].spec) == {128: 12}
    assert trials_by_width(PAPER.model_copy(update={"budget": Budget(trials=5)})) == {128: 2, 256: 3}
    # Ten configurations are trained twice more.
    assert sum(trials_by_width(PAPER.model_copy(update={"replicates": Replicates(count=3, top=10)})).values()) == 404
    first = {name: values[0] for name, values in TABLE_1.items()} | {"d_model": 512}
    assert trials_by_width(PAPER.model_copy(update={"first": (first,)})) == {128: 192, 256: 192, 512: 1}
    space: dict[str, Any] = {"d_model": (64, 128), "dropout": Range(low=0.0, high=0.5)}
    sampled = StudySpec(sampler="random", space=space, budget=Budget(trials=9))
    assert sum(trials_by_width(sampled).values()) == 9 and set(trials_by_width(sampled)) == {64, 128}
    ranged = StudySpec(sampler="random", space={"d_model": Range(low=64, high=128)}, budget=Budget(trials=9))
    with pytest.raises(MiiiiSearchError, match=r"space\.d_model is a range"):
        trials_by_width(ranged)


def test_a_measured_speed() -> None:
    plan = plan_at_speed(PAPER, 1000.0, gpus=2)
    assert plan.gpu_seconds == 384 * 65536 / 1000 and plan.seconds() == plan.gpu_seconds / 2
    shown = plan.to_json()
    assert shown["is_measured"] is True and shown["gpu"] is None
    assert shown["totals"]["forecast"]["gpu_hours"] == pytest.approx(0.594 * plan.gpu_seconds / 3600)
    assert shown["totals"]["all_epochs"]["seconds"] == plan.seconds()


def test_rules_without_recorded_figures_are_left_out() -> None:
    spec = PAPER.model_copy(update={"pruning": Pruning(rule="median")})
    assert set(plan_at_speed(spec, 1.0).shares) == {"none"}
    assert set(plan_at_speed(PAPER, 1.0).shares) == {"none", "forecast"}


def test_the_shares_are_those_of_the_page() -> None:
    """The tables of docs/research/pruning.md have the means, and one row per set."""
    page = PRUNING_PAGE.read_text(encoding="utf-8")
    for rule, share in SHARES.items():
        [mean] = re.findall(rf"^\| \**{rule}\** \| ([\d.]+)% \|", page, re.MULTILINE)
        assert share.mean == pytest.approx(float(mean) / 100)
    by_set = r"^\| `[\w-]+` \| [^|]* \| (\d+)% \| \*\*(\d+)%\*\* [^|]* \| [^|]* \| [^|]* \| (\d+)% \|"
    rows = re.findall(by_set, page, re.MULTILINE)
    assert len(rows) == 4
    for rule, values in zip(("none", "forecast", "quantile"), zip(*rows, strict=True), strict=True):
        percent = [int(value) / 100 for value in values]
        assert (SHARES[rule].low, SHARES[rule].high) == (min(percent), max(percent))


def test_lanes_are_chosen_as_a_worker_does() -> None:
    assert (MOST_LANES, MIN_SPEEDUP) == (autotune.MAX_LANES, autotune.MIN_SPEEDUP)


def test_the_speed_of_lanes_that_train_together() -> None:
    gpu, experiment = TABLE.gpu("big"), Experiment()
    assert TABLE.speed(gpu, experiment, [128] * 8) == 1500.0
    assert TABLE.speed(gpu, experiment, [128] * 31) == 1500.0  # that of 8 lanes
    assert TABLE.speed(gpu, experiment, [256] * 2) == 250.0  # an epoch takes as long as one of 8 lanes
    # 8 lanes of each: an epoch of all takes 8 / 1500 + 8 / 1000 seconds.
    assert TABLE.speed(gpu, experiment, [128, 256] * 8) == pytest.approx(16 / (8 / 1500 + 8 / 1000))
    assert TABLE.speed(gpu, experiment, []) is None
    assert TABLE.speed(gpu, experiment, [128, 512]) is None


def test_devices_of_the_table() -> None:
    gpu = TABLE.gpu_of_device("gpu (NVIDIA Big)")
    assert gpu is not None and gpu.key == "big"
    assert TABLE.gpu_of_device("gpu (NVIDIA Big 2)") is None
    assert TABLE.gpu_of_device("cpu (x86_64, 2 cores)") is None


def test_the_table_of_the_package() -> None:
    """Every GPU has both widths of Table 1 in every precision, and all lanes of a worker fit an H200."""
    table = read_predictions()
    for gpu in table.gpus:
        for precision in ("float32", "tf32", "bf16"):
            for d_model in (128, 256):
                entries = table.find(gpu, Experiment.model_validate({"precision": precision}), d_model)
                assert entries, (gpu.key, precision, d_model)
                assert all(entry.lane_epochs_per_second > 0 and entry.memory_per_lane > 1e6 for entry in entries)
    plan = plan_on_gpu(PAPER, "h200")
    assert all(width.lanes_that_fit and width.lanes_that_fit > 64 for width in plan.widths)


def running(worker: str, d_model: int | None) -> RunningTrial:
    """A running trial; `d_model` None: its parameters were not read."""
    params = {} if d_model is None else {"d_model": d_model}
    return RunningTrial(0, worker, 0, 1.0, 0.0, 0, (), params)


def finished(worker: str, device: str) -> FrozenTrial:
    return create_trial(value=1.0, user_attrs={"worker": worker, "device": device})


def test_what_is_measured_is_compared_on_known_gpus_only() -> None:
    ended = [finished("a", "gpu (NVIDIA Big)"), finished("b", "gpu (NVIDIA Big)"), finished("c", "cpu (x86_64)")]
    eight = [running("a", 128)] * 8
    assert predict_throughput(PAPER, eight, ended, TABLE) == 1500.0
    assert predict_throughput(PAPER, [*eight, *[running("b", 256)] * 8], ended, TABLE) == 2500.0
    # Only the parameters of the first lanes are read.
    assert predict_throughput(PAPER, [*[running("a", 128)] * 4, *[running("a", None)] * 4], ended, TABLE) == 1500.0
    assert predict_throughput(PAPER, [], ended, TABLE) is None
    assert predict_throughput(PAPER, [*eight, running("c", 128)], ended, TABLE) is None
    assert predict_throughput(PAPER, eight, [], TABLE) is None
    assert predict_throughput(PAPER, [running("a", 512)], ended, TABLE) is None
    assert predict_throughput(PAPER, [running("a", None)], ended, TABLE) is None
    assert predict_throughput(PAPER, eight, [finished("a", "gpu (NVIDIA Big 2)")], TABLE) is None


def test_the_status_shows_a_prediction_where_there_is_one() -> None:
    counts = dict.fromkeys(("waiting", "running", "complete", "pruned", "fail"), 1)
    lanes = [running("a", 128)]
    status = Status("s", StudyState.RUNNING, counts, 5, 100, lanes, None, {}, None)
    assert "· 1 epochs/s · time left" in headline(status)
    assert status.to_json()["predicted_epochs_per_second"] is None
    assert "· 1 epochs/s (predicted: 1500) · time left" in headline(replace(status, predicted_epochs_per_second=1499.6))


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_plan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A function that runs `plan`, and returns its exit code and what it printed to both streams."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["miiii-search", "plan", *arguments])
        try:
            main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


def test_the_speed_of_another_study(run_plan: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    database = open_database(url, create=True)
    study = create_study(database, "like", make_spec())
    like = ("--preset", "paper", "--like", "like", "--storage", url, "--json")
    code, _, said = run_plan(*like)
    assert code == 2 and "no trial of study `like` is being trained" in said and "miiii-search work" in said
    with_all(study)  # its running trial trains one epoch a second
    code, out, _ = run_plan(*like)
    plan = json.loads(out)
    assert code == 0 and plan["is_measured"] and plan["widths"][0]["lane_epochs_per_second"] == 1.0
    code, _, said = run_plan(*like[:3], "lik", *like[4:])
    assert code == 2 and "did you mean `like`?" in said
    database.close()


def test_the_command(run_plan: Command) -> None:
    code, out, _ = run_plan("--preset", "paper", "--gpu", "H200")
    assert code == 0 and "384 trials of up to 65,536 epochs" in out and "lanes that fit" in out
    assert "These are predictions. Nothing was measured on this GPU. They assume:" in out
    assert "pruned by forecast" in out and "docs/research/pruning.md" in out
    code, out, _ = run_plan("--preset", "paper", "--lane-epochs-per-second", "1000", "--gpus", "2", "--json")
    assert code == 0 and json.loads(out)["totals"]["all_epochs"]["seconds"] == 384 * 65536 / 1000 / 2
    for arguments, message in [
        ([], "plan needs one speed"),
        (["--gpu", "h200", "--lane-epochs-per-second", "1"], "plan needs one speed"),
        (["--lane-epochs-per-second", "1", "--lanes", "2"], "--lanes belongs to --gpu"),
        (["--gpu", "h900"], "did you mean"),
        (["--preset", "demo", "--gpu", "h200"], "there is no prediction for p = 31"),
    ]:
        code, out, error = run_plan(*arguments)
        assert code != 0 and out == "" and message in error, arguments
