"""What Ctrl-C, SIGTERM and failures do to a training run, and to the processes that Lightning has started for it."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

_TERMINATED = 128 + signal.SIGTERM


@contextmanager
def interruptible(trainer: Trainer, last: Path) -> Iterator[None]:
    """Around a training run: says what is kept when it is stopped, and leaves no process behind.

    Args:
        trainer: Lightning's, whose `fit` runs inside.
        last: The checkpoint that the same command would go on from.

    Raises:
        KeyboardInterrupt: After Ctrl-C, where Lightning would exit with status 1; its message says what is kept.
        SystemExit: With status 143, after SIGTERM.
    """
    before = signal.getsignal(signal.SIGTERM)
    _stop_at_sigterm()
    try:
        yield
    except BaseException as error:
        _end_processes(trainer)
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt(_kept(last)) from None
        if isinstance(error, SystemExit) and error.code == _TERMINATED and trainer.is_global_zero:
            print(f"stopped by SIGTERM: {_kept(last)}", file=sys.stderr)
        raise
    finally:
        if _in_main_thread():
            signal.signal(signal.SIGTERM, before)


class StopAtSigterm(Callback):
    """SIGTERM ends training at once: Lightning's own handler waits for the batch to end, and with several processes for
    a broadcast that a process in another collective never joins."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        _stop_at_sigterm()


def _stop_at_sigterm() -> None:
    if _in_main_thread():
        signal.signal(signal.SIGTERM, _exit)


def _exit(*_: Any) -> None:
    sys.exit(_TERMINATED)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _kept(last: Path) -> str:
    if not last.is_file():
        return "the first epoch had not ended, and nothing is kept"
    epoch = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["epoch"] + 1
    return f"the checkpoint of epoch {epoch} is kept in {last}, and the same command goes on from there"


def _end_processes(trainer: Trainer) -> None:
    """Ends those that Lightning has started, which would wait for this one; it watches them, and would kill this one
    for their exit status."""
    launcher = trainer.strategy.launcher
    if hasattr(launcher, "procs"):
        launcher.kill(signal.SIGKILL)
        launcher.procs.clear()
