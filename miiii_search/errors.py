"""Exceptions that a caller may catch. All of them derive from `MiiiiSearchError`; the command line shows one line."""


class MiiiiSearchError(Exception):
    """Base class of the errors that a user can fix.

    The message is one line: what is wrong, the value, the allowed range, and what to do.
    """


class InvalidSpecError(MiiiiSearchError, ValueError):
    """A study specification, an experiment or a configuration with a value that is not allowed or an unknown key."""


class StorageUnavailableError(MiiiiSearchError):
    """A database that cannot be reached: it does not answer, or its URL or certificate is wrong; see the message."""


class AccessRefusedError(MiiiiSearchError):
    """A database that answers but refuses this role: its password is no longer valid, or the role was removed."""


class StudyNotFoundError(MiiiiSearchError):
    """No study has this name."""


class StudyDeletedError(StudyNotFoundError):
    """The study was deleted, and no study of that name has been created since."""


class DuplicateStudyError(MiiiiSearchError):
    """A study of this name exists with a different specification."""


class VersionMismatchError(MiiiiSearchError):
    """A study that this version of the package cannot read, or would train differently than the version before."""


class NonFiniteLossError(MiiiiSearchError):
    """The loss of a run became infinite or NaN.

    Attributes:
        epoch: The first epoch whose loss was not finite.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the loss was not finite at epoch {epoch}")
        self.epoch = epoch


class OutOfMemoryError(MiiiiSearchError):
    """A run that does not fit into the memory of the device or of the host.

    Attributes:
        size: Bytes that the run needs, or None if that is unknown.
    """

    def __init__(self, reason: str, size: int | None) -> None:
        super().__init__(reason)
        self.size = size


class WorkerDiedError(MiiiiSearchError):
    """A worker process that ended while there was work left. Its trials return to the queue."""


def reason(error: BaseException) -> str:
    """Return the first line that says why something failed, or the name of the error's type if it has no message."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return next((line.strip() for line in words.splitlines() if line.strip()), type(error).__name__)
