"""Exceptions for mistakes of users.

Commands print their message without a traceback and exit with status 2. Every other exception is a bug.
"""

from importlib import import_module
from typing import Any


class UserError(ValueError):
    """A mistake that the user can correct. The message is one sentence: what is wrong, and what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file, folder or name on the hub that does not exist."""


class MissingExtraError(UserError, ImportError):
    """An optional dependency that is not installed."""


def import_extra(module: str, extra: str) -> Any:
    """Imports a module of an optional dependency.

    Args:
        module: The module's full name.
        extra: The extra of this distribution that installs it.

    Returns:
        The module.

    Raises:
        MissingExtraError: It is not installed; the message is the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f'{error.name} is not installed: pip install "clockwork-diffusion[{extra}]"') from error
