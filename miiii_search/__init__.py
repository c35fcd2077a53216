"""Hyperparameter search for grokking research.

    import miiii_search as ms

    run = ms.train(ms.Experiment(p=31, task="nanda"), ms.Hyperparameters(d_model=128))
    study = ms.create_study("sqlite:///grok.db", ms.presets["demo"], name="demo")

Names are imported when they are first used, so that `import miiii_search` is quick and loads no JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miiii_search import pruners
    from miiii_search.analysis.trained_run import TrainedRun
    from miiii_search.api import (
        Study,
        analyze,
        create_study,
        delete_study,
        list_studies,
        load_configuration,
        load_run,
        load_study,
        presets,
        train,
    )
    from miiii_search.config.study_spec import StudySpec
    from miiii_search.errors import (
        DuplicateStudyError,
        MiiiiSearchError,
        NonFiniteLossError,
        OutOfMemoryError,
        StudyNotFoundError,
        VersionMismatchError,
        WorkerDiedError,
    )
    from miiii_search.experiment.spec import Experiment, Hyperparameters
    from miiii_search.study.export import Configuration

__all__ = [
    "Configuration",
    "DuplicateStudyError",
    "Experiment",
    "Hyperparameters",
    "MiiiiSearchError",
    "NonFiniteLossError",
    "OutOfMemoryError",
    "Study",
    "StudyNotFoundError",
    "StudySpec",
    "TrainedRun",
    "VersionMismatchError",
    "WorkerDiedError",
    "__version__",
    "analyze",
    "create_study",
    "delete_study",
    "list_studies",
    "load_configuration",
    "load_run",
    "load_study",
    "presets",
    "pruners",
    "train",
]

_MODULES = {
    "Configuration": "study.export",
    "Experiment": "experiment.spec",
    "Hyperparameters": "experiment.spec",
    "StudySpec": "config.study_spec",
    "TrainedRun": "analysis.trained_run",
}
"""The module of each name that is neither an error nor in `api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module `miiii_search` has no attribute `{name}`")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("miiii-search")
    elif name == "pruners":
        value = import_module("miiii_search.pruners")
    else:
        module = "errors" if name.endswith("Error") else _MODULES.get(name, "api")
        value = getattr(import_module(f"miiii_search.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
