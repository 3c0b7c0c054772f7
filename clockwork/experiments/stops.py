"""Ctrl-C, SIGTERM and Slurm's signal before a job's time is over: how a command ends, and what it says."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from clockwork.io import slurm
from clockwork.io.stops import stop_behind

_TERMINATED, _REQUEUED = "terminated", "queued again"


@contextmanager
def stopped_by_signals(resumable: str) -> Iterator[None]:
    """Turns what stops the block into an exit status and a message.

    Args:
        resumable: What a stopped run leaves for the next one, such as "finished epochs"; empty for nothing.

    Raises:
        SystemExit: With status 130, 143 or 138, if Ctrl-C, SIGTERM or SIGUSR1 came.
    """
    terminate = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except BaseException as error:
        is_status = isinstance(error, SystemExit) and error.code not in (1, _TERMINATED, _REQUEUED)
        stop = stop_behind(error, (_TERMINATED, _REQUEUED))
        if stop is None or is_status:  # a block inside has said why; 1 is Lightning's answer to Ctrl-C
            raise
        if isinstance(stop, KeyboardInterrupt):
            _stopped(130, resumable, str(stop))
        if stop.code == _TERMINATED:
            _stopped(143, resumable)
        _stopped(138, resumable, by=f" by SIGUSR1 and job {slurm.job()} is queued again")
    finally:
        signal.signal(signal.SIGTERM, terminate)


def requeue_at_signal() -> None:
    """Installs the handler of the signal that Slurm sends before a job's time is over; training has its own.

    The first of several tasks queues the job again. The others ignore the signal: their end would end the first one.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    if slurm.job() is not None and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:  # not submitit's
        signal.signal(signal.SIGUSR1, _requeue if is_first else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # blocked by `cli.entry` until now


def _terminate(*_: Any) -> NoReturn:
    """So that what is half-written is removed, as on Ctrl-C."""
    sys.exit(_TERMINATED)


def _requeue(*_: Any) -> None:
    if slurm.requeue():
        sys.exit(_REQUEUED)


def _stopped(status: int, resumable: str, message: str = "", by: str = "") -> NoReturn:
    """Exits with a message: the given one, or one about what the command keeps."""
    if not message:
        kept = f"{resumable} are kept, and the same command goes on from there"
        message = kept if resumable else "nothing was kept, run it again"
    print(f"stopped{by}: {message}", file=sys.stderr)
    sys.exit(status)
