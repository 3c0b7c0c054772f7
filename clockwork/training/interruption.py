"""Ctrl-C, SIGTERM, Slurm's requeueing and failures during training: what is kept is reported, no process is left."""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment

from clockwork.errors import UserError
from clockwork.io import slurm
from clockwork.io.distributed import LOST_PROCESS, lost_process
from clockwork.io.stops import stop_behind

_TERMINATED, _REQUEUED = 128 + signal.SIGTERM, 128 + signal.SIGUSR1


@contextmanager
def interruptible(trainer: Trainer, last: Path) -> Iterator[None]:
    """Context manager for a training run. If the run is stopped, it reports the checkpoint and ends other processes.

    Args:
        trainer: Lightning's trainer, whose `fit` runs in the block.
        last: The checkpoint from which a run is resumed.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed (Lightning alone would exit with status 1). The message names the
            checkpoint that is kept.
        SystemExit: SIGTERM was received; the status is 143. Or Slurm's SIGUSR1 was, and the job has been queued again;
            the status is 138.
        UserError: Another process of the training has ended.
    """
    _end_with_main_process(trainer)
    previous_handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    _received.clear()
    _install_handlers()
    if _in_main_thread() and slurm.job() is not None:
        signal.signal(signal.SIGUSR1, _requeue if trainer.is_global_zero else signal.SIG_IGN)
    try:
        yield
    except BaseException as error:
        _end_processes(trainer)
        stop = stop_behind(error, (_TERMINATED, _REQUEUED))
        if isinstance(stop, KeyboardInterrupt):
            raise KeyboardInterrupt(_kept_message(last)) from None
        if stop is not None:
            if trainer.is_global_zero:
                print(_stopped_message(stop, last), file=sys.stderr)
            raise stop from None
        if trainer.world_size > 1 and lost_process(error):
            raise UserError(f"{LOST_PROCESS}; {_kept_message(last)}") from error
        raise
    finally:
        if _in_main_thread():
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)


class StopAtSignals(Callback):
    """Ends training at SIGTERM and Ctrl-C without waiting.

    Lightning's own handler of SIGTERM waits for the end of the batch, and with several processes for a broadcast, which
    a process in another collective never joins. Python ignores exceptions that are raised while a destructor runs, such
    as that of a progress bar; the next batch stops for a signal that came then.
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Replaces Lightning's handler."""
        _install_handlers()

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stops for a signal that came while a destructor ran."""
        if _received:
            _raise_for(_received[0])


_received: list[int] = []  # signals, in the order in which they came


def _install_handlers() -> None:
    """Installs the handlers of both signals; only the main thread may do so. An ignored SIGINT stays ignored."""
    if _in_main_thread():
        signal.signal(signal.SIGTERM, _stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    """Handles a signal: raises its exception, or leaves that to the next batch if a destructor is running."""
    _received.append(number)
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    if frame is None:
        _raise_for(number)


def _requeue(number: int, frame: FrameType | None) -> None:
    """Handles the signal that Slurm sends before a job's time is over: queues the job again and stops.

    Lightning's own handler would write a checkpoint wherever the signal meets the training, in the middle of a batch;
    going on from there would not give the same result. The checkpoint of the last epoch is there already.
    """
    if slurm.requeue():
        _stop(number, frame)


def _raise_for(number: int) -> None:
    """Raises what a signal raises: KeyboardInterrupt or SystemExit."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _in_main_thread() -> bool:
    """Tests whether the caller runs in the main thread."""
    return threading.current_thread() is threading.main_thread()


def _stopped_message(stop: SystemExit, last: Path) -> str:
    """Describes which signal stopped a run, and what is kept."""
    requeued = f" and job {slurm.job()} is queued again" if stop.code == _REQUEUED else ""
    name = "SIGUSR1" if stop.code == _REQUEUED else "SIGTERM"
    return f"stopped by {name}{requeued}: {_kept_message(last)}"


def _kept_message(last: Path) -> str:
    """Describes what a stopped run keeps."""
    if not last.is_file():
        return "the first epoch had not ended, and nothing is kept"
    epoch = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["epoch"] + 1
    return f"the checkpoint of epoch {epoch} is kept in {last}, and the same command resumes from it"


def _end_with_main_process(trainer: Trainer) -> None:
    """Asks Linux to kill a process that Lightning has started when the one that started it dies, however it does.

    It may wait for the other in a collective on the GPU, which ends after ten minutes at the earliest.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if isinstance(environment, LightningEnvironment) and trainer.local_rank > 0 and sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _end_processes(trainer: Trainer) -> None:
    """Ends the processes that Lightning has started, which would wait for this one forever.

    The launcher's list is cleared, because Lightning watches these processes and would kill this one for their exit
    status.
    """
    launcher = trainer.strategy.launcher
    if hasattr(launcher, "procs"):
        launcher.kill(signal.SIGKILL)
        launcher.procs.clear()
