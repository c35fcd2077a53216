from . import pruners
from .analysis.trained_run import TrainedRun
from .api import (
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
from .config.study_spec import StudySpec
from .errors import (
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
from .experiment.spec import Experiment, Hyperparameters
from .experiment.task import Task
from .study.export import Configuration
from .version import __version__

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
    "Task",
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
