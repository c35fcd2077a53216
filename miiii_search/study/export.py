"""Exporting the best trial as a configuration file with its provenance, and reading such a file."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from datetime import UTC
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
from optuna.trial import FrozenTrial

from miiii_search.config.overrides import read_config_file, to_tree, validate
from miiii_search.errors import InvalidSpecError, MiiiiSearchError
from miiii_search.experiment.metrics import Metrics
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.hints import PROGRAM, file_argument, hint
from miiii_search.storage.trial_attrs import METRICS_KEY
from miiii_search.study.best_trials import read_best
from miiii_search.study.replicates import MEDIAN, WORST, SeedStats
from miiii_search.study.status import StatusReader
from miiii_search.study.study import Study

KIND = "miiii-search configuration"
FORMAT = 1

TRIAL = "trial"
BY = (TRIAL, MEDIAN, WORST)
"""Measures by which `best --by` chooses a trial."""


@dataclass(frozen=True)
class Configuration:
    """A configuration that can be trained, with the metrics of an earlier run."""

    experiment: Experiment
    hyperparameters: Hyperparameters
    metrics: Metrics | None
    provenance: dict[str, Any]

    def to_tree(self) -> dict[str, Any]:
        """Return the configuration as plain data."""
        tree = {
            "kind": KIND,
            "format": FORMAT,
            "experiment": to_tree(self.experiment),
            "hyperparameters": to_tree(self.hyperparameters),
        }
        if self.metrics is not None:
            tree["metrics"] = to_tree(self.metrics)
        return tree | ({"provenance": self.provenance} if self.provenance else {})

    def to_toml(self, path: Path | None = None) -> str:
        """Return the configuration as TOML, with a comment that says how to train it.

        Args:
            path: The file that the text is written to, which the comment names.
        """
        file = shlex.quote(file_argument(path)) if path and str(path).isprintable() else "THIS_FILE"
        return f"# Train it again: {PROGRAM} train {file} --out runs/best\n" + tomli_w.dumps(self.to_tree())

    def to_json(self) -> str:
        """Return the configuration as JSON."""
        return json.dumps(self.to_tree(), indent=2, ensure_ascii=False) + "\n"


def export_best(study: Study, by: str = TRIAL) -> Configuration:
    """Return the best configuration of a study.

    Args:
        study: The study.
        by: `TRIAL` takes the best trial. `MEDIAN` and `WORST` take the best configuration over its seeds. Of its trials
            they take the one that it is ranked by, which shows what to expect better than the luckiest seed.

    Raises:
        StudyDeletedError: The study was deleted.
        MiiiiSearchError: No trial is complete, or no configuration is solved with enough of its seeds.
    """
    if by != TRIAL:
        return _export_configuration(study, StatusReader(study).rank_configurations(by), by)
    best = read_best(study)
    if best is None:
        status = hint("status", "--study", study.name, database=study.database)
        raise MiiiiSearchError(f"study `{study.name}` has no completed trial to export yet; see {status}")
    return export_trial(study, best)


def _export_configuration(study: Study, ranked: list[SeedStats], by: str) -> Configuration:
    best = ranked[0] if ranked else SeedStats({}, study.spec.replicates.count, ())
    chosen = best.worst_trial if by == WORST else best.median_trial
    if chosen is None:
        share, others = ("all", f"{MEDIAN} or {TRIAL}") if by == WORST else ("more than half", TRIAL)
        raise MiiiiSearchError(
            f"no configuration of study `{study.name}` is solved with {share} of its seeds "
            f"(there are to be {best.seeds}); export the best by another measure: --by {others}"
        )
    exported = export_trial(study, study.read_trials([chosen.trial_id])[chosen.trial_id])
    ranking = {key: value for key, value in best.to_json().items() if key != "params" and value is not None}
    return replace(exported, provenance={**exported.provenance, "ranking": {"by": by, **ranking}})


def export_trial(study: Study, trial: FrozenTrial) -> Configuration:
    """Return the configuration of a complete or pruned trial."""
    experiment, hyperparameters = study.trial_settings(trial)
    attributes = trial.user_attrs
    completed = trial.datetime_complete
    provenance = {
        "study": study.name,
        "trial": trial.number,
        "value": trial.value,
        "completed": completed and completed.astimezone(UTC).isoformat(timespec="seconds"),
        "storage": str(study.database),
        "git_commit": attributes.get("git_commit"),
        "device": attributes.get("device"),
        "worker": attributes.get("worker"),
        "seconds": attributes.get("seconds"),
        "versions": attributes.get("versions", {}),
        "numerics": attributes.get("numerics"),
    }
    return Configuration(
        experiment,
        hyperparameters,
        validate(Metrics, attributes[METRICS_KEY], f"the metrics of trial {trial.number}"),
        {key: value for key, value in provenance.items() if value is not None},
    )


def read_configuration(path: Path) -> Configuration:
    """Read a file that `to_toml` wrote. Nothing in it is executed.

    Raises:
        InvalidSpecError: The file is not a configuration, or is not valid.
        MiiiiSearchError: The file cannot be read, or has another format.
    """
    tree = read_config_file(path)
    if tree.get("kind") != KIND:
        raise InvalidSpecError(
            f'{path} is not a configuration of miiii-search (its first key must be kind = "{KIND}"); '
            "make one with miiii-search best --out best.toml"
        )
    written = tree.get("format")
    if written != FORMAT:
        raise MiiiiSearchError(
            f"{path} has format {written!r}, but miiii-search {version('miiii-search')} reads format {FORMAT}; "
            "use the version that wrote it, or a newer one"
        )
    unknown = tree.keys() - {"kind", "format", "experiment", "hyperparameters", "metrics", "provenance"}
    if unknown:
        raise InvalidSpecError(f"{path}: unknown key `{min(unknown)}`")
    provenance = tree.get("provenance", {})
    return Configuration(
        validate(Experiment, tree.get("experiment", {}), f"{path}: experiment"),
        validate(Hyperparameters, tree.get("hyperparameters", {}), f"{path}: hyperparameters"),
        validate(Metrics, tree["metrics"], f"{path}: metrics") if "metrics" in tree else None,
        provenance if isinstance(provenance, dict) else {},
    )
