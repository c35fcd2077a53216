"""The exceptions that the command line turns into a sentence, and other errors in a line."""


class MiiiiSearchError(Exception):
    """A mistake that the user can mend: one line that names the value, the limit and the way out."""


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
