"""Exceptions for mistakes of users.

Commands print their message without a traceback and exit with status 2. Every other exception is a bug.
"""

import math
import operator
from importlib import import_module
from numbers import Real
from typing import Any


class UserError(ValueError):
    """A mistake that the user can correct. The message is one sentence: what is wrong, and what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file, folder or name on the hub that does not exist."""


class MissingExtraError(UserError, ImportError):
    """An optional dependency that is not installed."""


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Checks an argument that is a whole number.

    Args:
        name: Its name.
        value: Its value; numpy's whole numbers and those of tensors are allowed, too.
        least: The smallest that is allowed.
        most: The largest, if there is one.

    Raises:
        UserError: It is another number, or none.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UserError(f"{name}={str(value)[:50]!r} is not possible: pass a whole number {allowed}")
    return number


def check_number(name: str, value: Any, least: float) -> float:
    """Checks an argument that is a number.

    Args:
        name: Its name.
        value: Its value.
        least: The smallest that is allowed.

    Raises:
        UserError: It is smaller, not finite, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < least:
        raise UserError(f"{name}={str(value)[:50]!r} is not possible: pass a number of at least {least:g}")
    return float(value)


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
