"""Hyperparameter search for grokking research.

    import miiii_search as ms

    run = ms.train(ms.Experiment(p=31, task="nanda"), ms.Hyperparameters(d_model=128))
    study = ms.create_study("sqlite:///grok.db", ms.presets["demo"], name="demo")

Each name is imported when it is first used, so that `import miiii_search` is fast and does not import JAX.
"""

from __future__ import annotations

import logging
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
        InvalidSpecError,
        MiiiiSearchError,
        NonFiniteLossError,
        OutOfMemoryError,
        StorageUnavailableError,
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
    "InvalidSpecError",
    "MiiiiSearchError",
    "NonFiniteLossError",
    "OutOfMemoryError",
    "StorageUnavailableError",
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

# Without a configuration of logging, nothing is printed; the command line adds a handler of its own.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_MODULES = {
    "Configuration": "study.export",
    "Experiment": "experiment.spec",
    "Hyperparameters": "experiment.spec",
    "StudySpec": "config.study_spec",
    "TrainedRun": "analysis.trained_run",
}
"""The module of each name. Names that are not listed are errors, or belong to `api`."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
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
    """Return the public names, also those that are not yet imported."""
    return __all__
