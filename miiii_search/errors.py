"""Exceptions that a caller may catch; all of them are `MiiiiSearchError`. The command line shows each as one line."""


class MiiiiSearchError(Exception):
    """An error that the user can do something about: one line with the value, the limit and what to do."""


class AccessRefusedError(MiiiiSearchError):
    """The database answers and refuses this role: its password is void, or the role is gone."""


def reason(error: BaseException) -> str:
    """Returns why something failed, in one line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return next((line.strip() for line in words.splitlines() if line.strip()), type(error).__name__)


class StudyNotFoundError(MiiiiSearchError):
    """There is no study of this name."""


class StudyDeletedError(StudyNotFoundError):
    """Somebody deleted the study, and nobody has created it again since."""


class VersionMismatchError(MiiiiSearchError):
    """A study that this version of the package cannot read, or would train differently than the one before."""


class DuplicateStudyError(MiiiiSearchError):
    """A study of this name exists with another specification."""


class NonFiniteLossError(MiiiiSearchError):
    """A run whose loss stopped being finite, at `epoch`."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the loss was not finite at epoch {epoch}")
        self.epoch = epoch


class OutOfMemoryError(MiiiiSearchError):
    """A run that needs more memory than there is: `size` in bytes, or None if it is not known."""

    def __init__(self, reason: str, size: int | None) -> None:
        super().__init__(reason)
        self.size = size


class WorkerDiedError(MiiiiSearchError):
    """A worker process ended while there was work. Its trials go back to the queue."""
