"""The exceptions that the command line turns into a sentence."""


class UserError(Exception):
    """A mistake that the user can mend: one line that names the value, the limit and the way out."""


def reason(error: BaseException) -> str:
    """Returns why something failed, in one line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return next((line.strip() for line in words.splitlines() if line.strip()), type(error).__name__)


class StudyNotFoundError(UserError):
    """There is no study of this name."""


class StudyDeletedError(StudyNotFoundError):
    """Somebody deleted the study, and nobody has created it again since."""
