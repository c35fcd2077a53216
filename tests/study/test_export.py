"""Exporting the best trial as a file, and the files that are accepted as configurations."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import Metrics
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.database import Database, open_database
from miiii_search.study.create import create_study
from miiii_search.study.export import FORMAT, KIND, Configuration, export_best, read_configuration
from miiii_search.study.study import Study
from miiii_search.testing.postgres import DatabaseServer
from tests.support import PER_TASK, claim, end, examples, make_spec, metrics_of


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    database = open_database(f"sqlite:///{tmp_path}/test.db", create=True)
    yield create_study(database, "study", make_spec())
    database.close()


METRICS = st.builds(
    lambda accuracy, loss, solved: Metrics(
        epochs_trained=48,
        epochs_to_solve=solved,
        validation_accuracy_mean=accuracy,
        moduli=(2, 3),
        weights_sha256="ab" * 32,
        **dict.fromkeys(PER_TASK, (accuracy, loss)),
    ),
    st.floats(0, 1),
    st.floats(0, 1e30),
    st.none() | st.integers(1, 48),
)


@examples(50)
@given(
    metrics=st.none() | METRICS,
    rate=st.floats(1e-9, 1e9),
    decay=st.floats(0, 1e9) | st.integers(0, 9),
    seed=st.integers(0, 2**31 - 1),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20),
    kind=st.sampled_from(["toml", "json"]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    metrics: Metrics | None,
    rate: float,
    decay: float,
    seed: int,
    name: str,
    kind: str,
) -> None:
    configuration = Configuration(
        Experiment(p=7, seed=seed, train_fraction=0.5),
        Hyperparameters(learning_rate=rate, weight_decay=decay),
        metrics,
        {"study": name, "trial": 3, "versions": {"jax": "0.10"}},
    )
    path = tmp_path_factory.mktemp("export") / f"best.{kind}"
    text = configuration.to_toml() if kind == "toml" else configuration.to_json()
    path.write_text(text, encoding="utf-8")
    assert read_configuration(path) == configuration  # floats included, to the last bit
    tree = (tomllib.loads if kind == "toml" else json.loads)(text)
    assert (tree["kind"], tree["format"]) == (KIND, FORMAT)
    assert tree["hyperparameters"]["learning_rate"] == rate


def test_best_of_several(study: Study) -> None:
    ends: list[tuple[TrialState, float | None]] = [
        (TrialState.COMPLETE, 0.25),
        (TrialState.PRUNED, 0.99),
        (TrialState.COMPLETE, 0.75),
        (TrialState.FAIL, None),
        (TrialState.COMPLETE, 0.75),
        (TrialState.COMPLETE, 0.5),
    ]
    for state, value in ends:
        end(study, claim(study), state, value)
    exported = export_best(study)
    assert (exported.provenance["trial"], exported.provenance["value"]) == (2, 0.75)
    solved = claim(study)
    metrics = metrics_of(study, 1.0, solved=24)
    end(study, solved, value=1.5, metrics=metrics, epochs_to_solve=24)
    exported = export_best(study)
    assert exported.provenance["trial"] == solved.number
    experiment, hyperparameters = study.trial_settings(study.trials()[solved.number])
    assert (exported.experiment, exported.hyperparameters) == (experiment, hyperparameters)
    assert exported.metrics is not None and exported.metrics.epochs_to_solve == 24


def test_replicates_are_exported_with_their_seed(study: Study) -> None:
    replicated = create_study(study.database, "replicated", make_spec(replicates=2))
    for _ in range(24):
        end(replicated, claim(replicated), value=0.25)
    end(replicated, claim(replicated), value=0.5)
    assert export_best(replicated).experiment.seed == replicated.spec.experiment.seed + 1


def test_provenance(study: Study) -> None:
    versions = {"jax": "0.10.2", "python": "3.11"}
    end(study, claim(study), git_commit="f" * 40, versions=versions, worker="host:1", seconds=2.5)
    provenance = export_best(study).provenance
    completed = datetime.fromisoformat(provenance.pop("completed"))
    assert completed.tzinfo is not None
    assert abs(completed - datetime.now(UTC)) < timedelta(minutes=1)
    assert provenance == {
        "study": "study",
        "trial": 0,
        "value": 0.5,
        "storage": str(study.database),
        "git_commit": "f" * 40,
        "device": "cpu",
        "worker": "host:1",
        "seconds": 2.5,
        "versions": versions,
    }


@pytest.mark.parametrize("ends", [[], [(TrialState.PRUNED, 0.9)], [(TrialState.FAIL, None), (TrialState.PRUNED, 0.5)]])
def test_nothing_completed(study: Study, ends: list[tuple[TrialState, float | None]]) -> None:
    for state, value in ends:
        end(study, claim(study), state, value)
    with pytest.raises(MiiiiSearchError, match="`study` has no completed trial to export yet; see miiii-search status"):
        export_best(study)


def test_no_password_is_exported(postgres_server: DatabaseServer, postgres_url: str) -> None:
    [password] = re.findall(r":([^:@/]+)@", postgres_url)
    # As part of the URL, and as one of its parameters.
    for url in (postgres_url, f"{postgres_url.replace(f':{password}@', '@')}?password={password}"):
        database: Database = open_database(url, create=True)
        study = create_study(database, "study", make_spec())
        end(study, claim(study))
        exported = export_best(study)
        assert password not in exported.to_toml() + exported.to_json()
        assert "postgresql://" in exported.to_toml()
        database.close()


def valid() -> dict[str, Any]:
    return Configuration(Experiment(p=7), Hyperparameters(), None, {"study": "s"}).to_tree()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": FORMAT + 1}, rf"has format {FORMAT + 1}, but miiii-search [0-9.]+ reads format {FORMAT}; use"),
        ({"format": "1"}, "has format '1'"),
        ({"format": None}, "has format None"),
        ({"kind": "something else"}, "is not a configuration of miiii-search"),
        ({"kind": None}, "is not a configuration of miiii-search"),
        ({"optimizer": {"beta": 1}}, "unknown key `optimizer`"),
        ({"experiment": {"p": 7, "epoch": 3}}, "experiment: unknown key `epoch`; did you mean `epochs`"),
        ({"hyperparameters": {"lr": 1.0}}, "hyperparameters: unknown key `lr`"),
        ({"hyperparameters": {"dropout": "0.1"}}, "hyperparameters: dropout must be a valid number"),
        ({"experiment": {"p": 8}}, "p must be a prime of at least 5, but p = 8"),
        ({"experiment": 7}, "experiment"),
        ({"metrics": {"epochs_trained": 3}}, "metrics: `.*` is missing"),
    ],
)
@pytest.mark.parametrize("kind", ["toml", "json"])
def test_files_that_are_not_ours(tmp_path: Path, change: dict[str, Any], complaint: str, kind: str) -> None:
    tree = {key: value for key, value in (valid() | change).items() if value is not None}
    path = tmp_path / f"best.{kind}"
    path.write_text(tomli_w.dumps(tree) if kind == "toml" else json.dumps(tree))
    with pytest.raises(MiiiiSearchError, match=complaint) as error:
        read_configuration(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_configuration_at_all(tmp_path: Path) -> None:
    for name, text in [("a.toml", "x = "), ("a.json", "{"), ("a.json", "[]"), ("a.toml", "x = 1")]:
        (tmp_path / name).write_text(text)
        with pytest.raises(MiiiiSearchError, match=re.escape(str(tmp_path / name))):
            read_configuration(tmp_path / name)
    with pytest.raises(MiiiiSearchError, match="cannot read"):
        read_configuration(tmp_path / "none.toml")
