"""The options of `up`, `create` and `coordinate` that select a study or describe a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from miiii_search.cli.output import print_line
from miiii_search.cli.resolve import open_storage
from miiii_search.errors import MiiiiSearchError

if TYPE_CHECKING:
    from miiii_search.config.study_spec import StudySpec
    from miiii_search.study.study import Study

DEFAULT_PRESET = "demo"


@dataclass(frozen=True)
class StudyRequest:
    """A study as the options of a command ask for it."""

    study_name: str | None
    storage: str
    preset: str | None
    spec_file: Path | None
    settings: list[str] | None
    """Changes of the specification, each as "KEY=VALUE"."""
    trials: int | None
    """Maximum number of trials."""
    artifacts: str | None
    """URL of the artifact store of a new study."""

    @property
    def name(self) -> str:
        """The study's name: the given one, or else that of the specification file, or else that of the preset."""
        # A file may name the preset from which it was made, but its specification may be another one by now.
        return self.study_name or (self.spec_file.stem if self.spec_file else self.spec().preset) or "study"

    @property
    def has_changes(self) -> bool:
        """Whether any option describes the specification, so that an existing study must have the same one."""
        return bool(self.preset or self.spec_file or self.settings or self.trials)

    def spec(self) -> StudySpec:
        """Return the specification that the options describe.

        Raises:
            MiiiiSearchError: The options contradict each other or describe no valid study.
        """
        if self.preset and self.spec_file:
            raise MiiiiSearchError(
                f"--preset {self.preset} and --spec {self.spec_file} both give a specification: "
                "choose one, and leave the other out (a preset may also come from MIIII_PRESET)"
            )
        return read_spec(self.preset, self.spec_file, self.settings, self.trials)


def read_spec(preset: str | None, spec_file: Path | None, settings: list[str] | None, trials: int | None) -> StudySpec:
    """Return the specification in a file or of a preset, with changes.

    Args:
        preset: Name of a preset; the demo by default.
        spec_file: TOML or JSON file, instead of a preset.
        settings: Changes, each as "KEY=VALUE".
        trials: Maximum number of trials.

    Raises:
        MiiiiSearchError: The file cannot be read, or the specification is invalid.
    """
    from miiii_search.config.overrides import apply_settings, read_config_file, to_tree, validate
    from miiii_search.config.presets import get_preset
    from miiii_search.config.study_spec import StudySpec
    from miiii_search.pruners.factory import check_pruning

    tree = read_config_file(spec_file) if spec_file else to_tree(get_preset(preset or DEFAULT_PRESET).spec)
    if spec_file:
        validate(StudySpec, tree, str(spec_file))
    spec = apply_settings(StudySpec, tree, [*(settings or []), *([f"budget.trials={trials}"] if trials else [])])
    check_pruning(spec)
    return spec


def open_or_create(
    request: StudyRequest,
    *,
    keep: bool = False,
    recreate: bool = True,
    check_name: Callable[[str], object] = lambda name: None,
) -> Study:
    """Open the requested study, or create it.

    Args:
        request: The study. If it exists and the request describes a specification, the two must be equal.
        keep: Whether to keep the specification of an existing study even if the request describes another one.
        recreate: Whether a study that was deleted may be created again.
        check_name: Called with the study's name before anything is created; may raise `MiiiiSearchError`.

    Raises:
        StudyDeletedError: The study was deleted, and `recreate` is False.
        MiiiiSearchError: The request is invalid, or an existing study is different.
    """
    from miiii_search.config.overrides import describe_differences
    from miiii_search.storage.artifact_stores import parse_store_url, prepare_store
    from miiii_search.study import create, names
    from miiii_search.study import open as opening

    spec, name = request.spec(), request.name
    check_name(name)
    database = open_storage(request.storage, create=True)
    exists = name in names.study_names(database)
    store_url = parse_store_url(request.artifacts) if request.artifacts else None
    if not recreate:
        names.check_not_deleted(database, name)
    if store_url and not exists:
        prepare_store(store_url)
    if exists and (keep or not request.has_changes):
        study = opening.open_study(database, name)
    else:
        study = create.create_study(database, name, spec, store_url, again=recreate)
    if store_url and study.artifact_store_url != store_url and not keep:
        kept = study.artifact_store_url or "its database"
        raise MiiiiSearchError(
            f"study `{name}` keeps its artifacts in {kept}, not in {store_url}; leave --artifacts out"
        )
    print_line(f"study `{name}` {'exists' if exists else 'created'} in {database}: {_describe_size(study)}")
    if keep and (differences := describe_differences(study.spec, spec)):
        print_line(f"its specification is kept, although the options differ: {'; '.join(differences)}")
    return study


def _describe_size(study: Study) -> str:
    """Return the number of trials and epochs, such as "12 trials of up to 3,072 epochs"."""
    n_trials, up_to = study.spec.n_trials, "up to " * (study.spec.replicates.top is not None)
    return f"{up_to}{n_trials} trial{'s' * (n_trials != 1)} of up to {study.spec.experiment.epochs:,} epochs"
