"""Exceptions for mistakes of users.

Commands print their message without a traceback and exit with status 2. Every other exception is a bug.
"""


class UserError(ValueError):
    """A mistake that the user can correct. The message is one sentence: what is wrong, and what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file, folder or name on the hub that does not exist."""
