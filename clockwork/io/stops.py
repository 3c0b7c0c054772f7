"""Ctrl-C and signals that end a program, where they became the cause of another exception."""

from collections.abc import Container


def stop_behind(error: BaseException | None, codes: Container[object]) -> KeyboardInterrupt | SystemExit | None:
    """Finds the Ctrl-C or signal that led to an exception.

    Python raises a signal's exception wherever the program is. In the middle of another library's cleaning up it may
    become the cause of another exception (about 3% of the moments at which Hydra composes a config).

    Args:
        error: The exception.
        codes: Codes of the `SystemExit` that handlers of signals raise.

    Returns:
        The `KeyboardInterrupt`, or the `SystemExit` with one of these codes; None without one.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code in codes):
            return error
        error = error.__context__
    return None
