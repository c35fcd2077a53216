"""The pruners on hand-made trials, against brute force."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from miiii_search.config.study_sections import PRUNING_RULES, Pruning
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners import Forecast, NopPruner, Peer, Pruner, Quantile
from miiii_search.pruners.factory import check_pruning, make_optuna_pruner, make_pruner
from miiii_search.storage.database import Database, open_database
from miiii_search.study.create import create_study
from tests.support import claim, examples, make_spec, pruning_context

RUNGS = (16, 32, 64)


def trial(reports: dict[int, float], state: TrialState = TrialState.RUNNING) -> FrozenTrial:
    value = reports[max(reports)] if state == TrialState.COMPLETE and reports else None
    return create_trial(state=state, value=value, intermediate_values=reports)


def brute_force_quantile(values: list[float], quantile: float) -> Fraction:
    """The value at the share `quantile` of the way through the sorted values, between two of them on a line."""
    ordered = sorted(map(Fraction, values))
    position = Fraction(quantile) * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


ACCURACIES = st.integers(0, 16).map(lambda k: k / 16)
STATES = st.sampled_from([TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])


@st.composite
def trials(draw: st.DrawFn) -> FrozenTrial:
    n_reports = draw(st.integers(0, 3))
    state = draw(STATES if n_reports else st.just(TrialState.WAITING))
    return trial({rung: draw(ACCURACIES) for rung in RUNGS[:n_reports]}, state)


@examples(300)
@given(
    mine=st.tuples(ACCURACIES, ACCURACIES),
    peers=st.lists(trials(), max_size=8),
    quantile=st.sampled_from([0.125, 0.25, 0.5, 0.75]),
    min_trials=st.integers(2, 6),
)
def test_quantile(mine: tuple[float, float], peers: list[FrozenTrial], quantile: float, min_trials: int) -> None:
    judged = trial(dict(zip(RUNGS, mine, strict=False)))
    values = [mine[1]]
    for peer in peers:
        reports = peer.intermediate_values
        if 32 in reports:
            values.append(reports[32])
        elif 16 in reports and peer.state in (TrialState.COMPLETE, TrialState.PRUNED):
            values.append(reports[16])  # it ended there, and counts with what it had reached
    pruned = len(values) >= min_trials and Fraction(mine[1]) < brute_force_quantile(values, quantile)
    reason = Quantile(quantile, min_trials).should_prune(pruning_context(judged, [*peers, judged], 32))
    assert (reason is not None) == pruned
    if reason is not None:
        assert f"accuracy {mine[1]:.3f} at epoch 32" in reason and f"of {len(values)} trials" in reason


def test_quantile_in_an_optuna_study() -> None:
    """It prunes the trials that it prunes in our studies: here those below the median of all at the same step."""

    def objective(trial: optuna.Trial) -> float:
        accuracy = 1 - trial.number / 8
        trial.report(accuracy, 16)
        if trial.should_prune():
            raise optuna.TrialPruned
        return accuracy

    study = optuna.create_study(direction="maximize", pruner=Quantile(0.5, 4))
    study.optimize(objective, n_trials=8)
    assert [one.state == TrialState.PRUNED for one in study.trials] == [False] * 3 + [True] * 5


def test_winners_that_stopped_early_stay_in_the_comparison() -> None:
    solved = [trial({16: 1.0}, TrialState.COMPLETE) for _ in range(3)]
    late = trial({16: 0.1, 32: 0.1})
    assert Quantile(0.5, 4).should_prune(pruning_context(late, [*solved, late], 32)) is not None
    running = [trial({16: 1.0}) for _ in range(3)]  # of these nobody knows what they are at epoch 32
    assert Quantile(0.5, 4).should_prune(pruning_context(late, [*running, late], 32)) is None


def test_a_trial_at_the_quantile_goes_on() -> None:
    same = [trial({16: 0.25}) for _ in range(8)]
    assert [Quantile(0.9, 2).should_prune(pruning_context(one, same, 16)) for one in same] == [None] * 8


def test_nothing_is_decided_without_a_report_or_peers() -> None:
    peers = [trial({16: 1.0, 32: 1.0}) for _ in range(4)]
    silent, low = trial({16: 0.0}), trial({16: 0.0, 32: 0.0})
    rule = Quantile(0.5, 4)
    assert rule.should_prune(pruning_context(silent, [*peers, silent], 32)) is None
    assert rule.should_prune(pruning_context(low, [*peers[:2], low], 32)) is None
    assert rule.should_prune(pruning_context(low, [*peers[:3], low], 32)) is not None


def test_none_prunes_nothing() -> None:
    peers = [trial({16: 1.0}, TrialState.COMPLETE) for _ in range(9)]
    worst = trial({16: 0.0})
    rule = make_pruner(make_spec(pruning=Pruning(rule="none")), optuna.create_study())
    assert isinstance(rule, NopPruner) and rule.should_prune(pruning_context(worst, [*peers, worst], 16)) is None


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path_factory.mktemp('pruning')}/test.db", create=True)
    yield opened
    opened.close()


OPTIONS: dict[str, dict[str, float]] = {
    "threshold": {"lower": 0.2},
    "patient": {"patience": 1},
    "median": {"n_startup_trials": 4},
    "percentile": {"n_startup_trials": 4, "percentile": 50.0},
    "quantile": {},
}


@pytest.mark.parametrize("name", PRUNING_RULES)
def test_every_rule_on_a_study(sqlite: Database, name: str) -> None:
    """Eight trials whose accuracies are 0 to 0.7: pruners that decide prune the worst and continue the best."""
    experiment = Experiment(p=7, task="nanda", epochs=64, evaluate_every=16)
    pruning = Pruning(rule=name, min_epochs=16, quantile=0.5, options=OPTIONS.get(name, {}))
    study = create_study(sqlite, name, make_spec(experiment=experiment, pruning=pruning))
    stock = study.as_optuna()
    rule = make_pruner(study.spec, stock)
    for accuracy in range(7, -1, -1):
        lease = claim(study)
        for rung in (16, 32, 48):
            # The rule `patient` wants to see it fall.
            value = accuracy / 10 + (0.04 if rung == 16 else 0.0)
            sqlite.optuna.set_trial_intermediate_value(lease.trial_id, rung, value)

    def ask(rule: Pruner, rung: int) -> dict[int, str]:
        seen = stock.get_trials(deepcopy=False)
        running = [one for one in seen if one.state == TrialState.RUNNING]
        return {
            one.number: why
            for one in running
            if (why := rule.should_prune(pruning_context(one, seen, rung))) is not None
        }

    rung = 48 if name == "patient" else 32  # it wants two rungs after the best one
    decided = ask(rule, rung)
    for number, why in decided.items():
        assert f"{(7 - number) / 10:.3f}" in why and f"epoch {rung}" in why
    assert 0 not in decided or name == "patient"  # which compares a trial with itself alone: all of them fall
    if name in ("median", "percentile"):  # which compare with trials that have ended
        assert decided == {}
        for lease_id in [one._trial_id for one in stock.trials[:4]]:
            sqlite.optuna.set_trial_state_values(lease_id, TrialState.COMPLETE, [0.5])
        decided = ask(rule, 32)
        assert set(decided) == {4, 5, 6, 7}
    expected: dict[str, Any] = {"none": set(), "quantile": {4, 5, 6, 7}, "threshold": {6, 7}, "patient": set(range(8))}
    assert set(decided) == expected.get(name, set(decided))
    if name == "successive_halving":
        assert 7 in decided


def test_optunas_pruners_see_no_report_beyond_the_rung() -> None:
    """Several rungs may be reported at once; what is decided at one does not hinge on that."""
    rule = make_pruner(
        make_spec(pruning=Pruning(rule="threshold", options={"lower": 0.5})), optuna.create_study(direction="maximize")
    )
    fell = trial({16: 0.75, 32: 0.25})
    assert rule.should_prune(pruning_context(fell, [fell], 16)) is None
    assert rule.should_prune(pruning_context(fell, [fell], 32)) is not None


@pytest.mark.parametrize(
    ("rule", "options", "complaint"),
    [
        ("threshold", {}, "needs a bound: --set pruning.options.lower"),
        ("median", {"warmup": 3}, "pruning.options for `median`: .*warmup"),
        ("percentile", {"percentile": 200.0}, "pruning.options for `percentile`: .*0 and 100"),
        ("successive_halving", {"reduction_factor": 1}, "pruning.options for `successive_halving`"),
    ],
)
def test_options_that_a_pruner_does_not_take(rule: str, options: dict[str, float], complaint: str) -> None:
    with pytest.raises(MiiiiSearchError, match=complaint):
        make_pruner(make_spec(pruning=Pruning(rule=rule, options=options)), optuna.create_study())


def test_optunas_pruners_have_resources_that_do_not_hinge_on_the_process() -> None:
    """`auto` is guessed from the trials that a process happens to see."""
    experiment = Experiment(p=7, task="nanda", epochs=1024)
    for name in ("successive_halving", "hyperband"):
        rule: Any = make_pruner(make_spec(experiment=experiment, pruning=Pruning(rule=name)), optuna.create_study())
        assert rule.pruner._min_resource == 256
        assert getattr(rule.pruner, "_max_resource", 1024) == 1024


@pytest.mark.parametrize(
    ("rule", "setting", "complaint"),
    [
        (
            "forecast",
            {"quantile": 0.5},
            "pruning.quantile is for pruning.rule = 'quantile', but the rule is 'forecast'",
        ),
        ("none", {"min_trials": 9}, "pruning.min_trials is for .* add --set pruning.rule=quantile"),
        ("none", {"min_trials": 2}, "pruning.min_trials is for .* add --set pruning.rule=quantile"),
        ("hyperband", {"safety": 1.0}, "pruning.safety is for pruning.rule = 'forecast'"),
        ("median", {"safety": 9.0}, "pruning.safety is for pruning.rule = 'forecast'"),
        ("forecast", {"options": {"patience": 1}}, "pruning.options are for Optuna's pruners"),
    ],
)
def test_settings_of_another_rule(rule: str, setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(MiiiiSearchError, match=complaint):
        check_pruning(make_spec(pruning=Pruning(rule=rule, **setting)))
    check_pruning(make_spec(pruning=Pruning(rule="quantile", quantile=0.5, min_trials=9)))
    check_pruning(make_spec(pruning=Pruning(rule="forecast", safety=9.0)))


def test_pruners_and_what_they_see_do_not_change() -> None:
    """Threads share them."""
    context = pruning_context(trial({16: 0.5}), [], 16)
    pruner = make_pruner(make_spec(pruning=Pruning(rule="median")), optuna.create_study())
    things = (context, context.history, Peer(1, TrialState.RUNNING), Quantile(0.5, 2), Forecast(), pruner)
    for thing in things:
        with pytest.raises(FrozenInstanceError):
            setattr(thing, next(iter(vars(thing))), None)


@pytest.mark.parametrize("name", PRUNING_RULES)
def test_which_pruners_compare_trials(name: str) -> None:
    """Any of Optuna's pruners may read the study, so that all of them get the trials."""
    pruner = make_pruner(
        make_spec(pruning=Pruning(rule=name, options={"lower": 0.1} if name == "threshold" else {})),
        optuna.create_study(),
    )
    assert pruner.uses_peers == (name not in ("none", "forecast"))


def test_options_of_optunas_pruners_by_default() -> None:
    def made(rule: str, floor: int = 100, **options: float) -> Any:
        return make_optuna_pruner(Pruning(rule=rule, options=options), floor, 1000)

    assert vars(made("percentile")) == vars(optuna.pruners.PercentilePruner(25.0))
    assert vars(made("percentile", percentile=50.0)) == vars(optuna.pruners.PercentilePruner(50.0))
    assert vars(made("patient")) == {"_wrapped_pruner": None, "_patience": 3, "_min_delta": 0.0}
    patient = made("patient", patience=2.0, min_delta=0.5)
    assert vars(patient) == {"_wrapped_pruner": None, "_patience": 2, "_min_delta": 0.5}
    assert vars(made("median")) == vars(optuna.pruners.MedianPruner())
    assert vars(made("threshold", upper=0.5)) == vars(optuna.pruners.ThresholdPruner(upper=0.5))
    for floor, least in ((0, 1), (1, 1), (2, 2), (100, 100)):
        assert made("successive_halving", floor)._min_resource == least
        assert (made("hyperband", floor)._min_resource, made("hyperband", floor)._max_resource) == (least, 1000)
    assert made("successive_halving", min_resource=7)._min_resource == 7
    assert made("hyperband", min_resource=7, max_resource=70)._max_resource == 70
    with warnings.catch_warnings(record=True) as seen:  # an experimental interface of Optuna's
        warnings.simplefilter("always")
        made("patient")
    assert seen == []


def test_the_reason_of_one_of_optunas_pruners() -> None:
    rule = make_pruner(
        make_spec(pruning=Pruning(rule="threshold", options={"lower": 0.5})), optuna.create_study(direction="maximize")
    )
    low = trial({1600: 0.25, 3200: 0.75})
    assert rule.should_prune(pruning_context(low, [low], 1600)) == (
        "ThresholdPruner at epoch 1,600, validation accuracy 0.250"
    )
    assert low.intermediate_values == {1600: 0.25, 3200: 0.75}
    assert rule.should_prune(pruning_context(low, [low], 3200)) is None


def test_the_reason_of_quantile() -> None:
    peers = [trial({1600: accuracy}) for accuracy in (0.25, 0.5, 0.75, 1.0)]
    assert Quantile(0.5, 4).should_prune(pruning_context(peers[0], peers, 1600)) == (
        "validation accuracy 0.250 at epoch 1,600 is below 0.625, the 50% quantile of 4 trials"
    )
    ended = [trial({8: 1.0, 16: 0.5, 24: 0.0}, TrialState.PRUNED) for _ in range(2)]
    judged = trial({20: 0.25, 28: 0.25})
    assert Quantile(0.5, 3).should_prune(pruning_context(judged, [*ended, judged], 20)) is not None  # below 0.5
    assert Quantile(0.5, 3).should_prune(pruning_context(judged, [*ended, judged], 28)) is None  # not below 0
    early = trial({8: 0.25})  # it has no report before epoch 8, and none at 4
    assert Quantile(0.5, 2).should_prune(pruning_context(trial({4: 0.0}), [trial({8: 1.0}), early], 4)) is None


def test_a_trial_that_ended_with_later_reports_alone_is_no_peer() -> None:
    later = [trial({32: 1.0}, TrialState.PRUNED) for _ in range(3)]
    judged = trial({16: 0.0})
    assert Quantile(0.5, 2).should_prune(pruning_context(judged, [*later, judged], 16)) is None


def test_options_are_checked_when_a_study_is_created() -> None:
    with pytest.raises(MiiiiSearchError, match=r"pruning\.options for `median`"):
        check_pruning(make_spec(pruning=Pruning(rule="median", options={"warmup": 3})))
    check_pruning(make_spec(pruning=Pruning(rule="median", options={"n_startup_trials": 3})))


def test_quantile_without_reports_in_an_optuna_study() -> None:
    study = optuna.create_study(direction="maximize", pruner=Quantile(0.5, 2))
    assert not study.ask().should_prune()
