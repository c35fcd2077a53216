"""The one exception that the command line turns into a sentence."""


class UserError(Exception):
    """A mistake that the user can mend: one line that names the value, the limit and the way out."""
