"""Checkpoints of a training: written whole or not at all, and the one before is kept in case the last is damaged."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from clockwork.errors import UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.foreign import one_line

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place and renames them, wherever the folder of temporary files is.

    The checkpoint that `last.ckpt` replaces stays as `previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Args:
            checkpoint: State of the training.
            path: The file.
            storage_options: Not used.
        """
        file = Path(path)
        with atomic_write(file) as partial:
            with partial.open("wb") as stream:  # of a path, torch hides the system's error
                torch.save(checkpoint, stream)
            if file.name == LAST and file.is_file():
                previous = file.with_name(PREVIOUS)
                previous.unlink(missing_ok=True)
                try:
                    os.link(file, previous)  # so that there is a last checkpoint at every moment
                except OSError:  # a file system without links
                    file.rename(previous)


def checkpoint_to_resume(folder: Path) -> Path | None:
    """Chooses the checkpoint from which a training goes on: the last one, or if that is damaged the one before.

    Args:
        folder: Folder of the checkpoints.

    Returns:
        The file; None if there is none.

    Raises:
        UserError: All are damaged.
    """
    damaged: list[str] = []
    for file in (folder / LAST, folder / PREVIOUS):
        if file.is_file():
            if (problem := _problem(file)) is None:
                if damaged:
                    print(f"{damaged[0]}: training goes on from the one before, {file}")
                return file
            damaged.append(f"{file} is damaged ({problem})")
    if damaged:
        raise UserError(f"{damaged[0]}, and no other checkpoint is there: remove it to train from the start")
    return None


def _problem(file: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(checkpoint, dict) or not {"state_dict", "epoch"} <= checkpoint.keys():
            return "it holds no state of a training"
        with zipfile.ZipFile(file) as archive:  # compares the sums of the weights, which the line above has not read
            name = archive.testzip()
        return None if name is None else f"{name} in it has changed"
    except (RuntimeError, OSError, ValueError, LookupError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as e:
        return one_line(e).partition(".")[0][:100] or type(e).__name__
