"""Mistakes of users, which a command answers with one sentence and exit status 2; every other exception is a bug."""


class UserError(ValueError):
    """A mistake that the user can mend. The message is one sentence that says what is wrong and what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file, folder or name on the hub that is not there."""
