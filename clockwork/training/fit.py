"""Training with Lightning's Trainer: resuming, checkpoints, averaged weights, early stopping and interruption."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment

from clockwork.errors import UserError
from clockwork.io import slurm
from clockwork.io.progress import hides_bars
from clockwork.training.callbacks import EpochLines, ProgressBar, StayStopped, StopWhenNotFinite, WeightAverage
from clockwork.training.checkpoints import LAST, AtomicCheckpoints, checkpoint_to_resume
from clockwork.training.interruption import StopAtSignals, interruptible

KEEP = ("last", "best")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def fit(
    module: LightningModule,
    output: Path,
    data: LightningDataModule | None = None,
    callbacks: Sequence[Callback] = (),
    every_n_steps: int | None = None,
    ema: float | None = None,
    monitor: str | None = None,
    keep: str = "last",
    patience: int | None = None,
    **trainer: Any,
) -> Trainer:
    """Trains a module, resuming from `output/checkpoints/last.ckpt` if that exists, or if it is damaged the one before.

    Afterwards the module holds the weights that `keep` and `ema` choose.

    Args:
        module: The module to train.
        output: Folder of the checkpoints.
        data: Data module, unless `module` has dataloaders.
        callbacks: Additional callbacks; `Checkpoint` callbacks run after the epoch's checkpoint is written.
        every_n_steps: Training steps between two checkpoints; by default one is written per epoch.
        ema: Decay of an exponential moving average of the weights, which replaces the weights at the end.
        monitor: Name of the logged figure whose lowest value determines `best.ckpt`, such as `val/loss`. Without it
            there is no validation.
        keep: The epoch of the final weights: `last`, or `best` by `monitor`.
        patience: Number of epochs without a new lowest `monitor` after which training stops; never by default.
        trainer: Further arguments of Lightning's `Trainer`.

    Returns:
        The trainer.

    Raises:
        UserError: The options are not compatible (`check_options`), the loss or a gradient was not finite, or all
            checkpoints are damaged.
        KeyboardInterrupt: Ctrl-C was pressed; the message names the checkpoint that is kept.
        SystemExit: SIGTERM was received; the status is 143.
    """
    slurm.join_step()
    check_options(keep, patience, ema, trainer.get("precision", "32-true"), monitor is not None)
    folder = output / "checkpoints"
    average = None if ema is None else WeightAverage(ema)
    standard: list[Callback] = [StopAtSignals(), StopWhenNotFinite()]
    if average is not None:
        standard.append(average)
    if patience is not None:
        standard.append(StayStopped(monitor, patience=patience, check_on_train_epoch_end=True))
    shows_bar = trainer.get("enable_progress_bar", not hides_bars())
    standard.append(ProgressBar(refresh_rate=20) if shows_bar else EpochLines())
    quiet = {"enable_progress_bar": shows_bar, "enable_model_summary": False, "num_sanity_val_steps": 0}
    settings = {"log_every_n_steps": 1, **quiet, **trainer}
    pl_trainer = Trainer(
        default_root_dir=output,
        callbacks=[*standard, *_checkpoints(folder, monitor, every_n_steps), *callbacks],
        use_distributed_sampler=False,
        inference_mode=False,
        plugins=[AtomicCheckpoints(), *_launched_by()],
        limit_val_batches=0 if monitor is None else None,
        **settings,
    )
    resumed = checkpoint_to_resume(folder)
    with interruptible(pl_trainer, folder / LAST):
        pl_trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    _load_final_weights(module, average, folder / "best.ckpt" if keep == "best" else None)
    return pl_trainer


def check_options(keep: str, patience: int | None, ema: float | None, precision: str, validated: bool) -> None:
    """Checks options of `fit` before anything is loaded.

    Args:
        keep: As in `fit`.
        patience: As in `fit`.
        ema: As in `fit`.
        precision: Lightning's precision.
        validated: Whether there is validation.

    Raises:
        UserError: An option has no such value, or needs another one.
    """
    if keep not in KEEP:
        raise UserError(f"keep={keep} is not known: use {' or '.join(KEEP)}")
    if not validated and (keep == "best" or patience is not None):
        option = "keep=best" if keep == "best" else f"patience={patience}"
        raise UserError(f"{option} needs validation figures: set val_prompts to 1 or more")
    if ema is not None and not 0 < ema < 1:
        raise UserError(f"ema={ema} is not a decay: use a number between 0 and 1, such as 0.999, or null")
    if precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={precision} does not keep the weights in float32: use {', '.join(PRECISIONS)}"
        )


def _launched_by() -> list[ClusterEnvironment]:
    """Tells Lightning which processes have been started; by itself it takes all that Slurm's job reserves for tasks."""
    if "RANK" in os.environ:
        return [TorchElasticEnvironment()]
    return [] if slurm.job() is None else [LightningEnvironment()]


def _checkpoints(folder: Path, monitor: str | None, every_n_steps: int | None) -> list[Callback]:
    """Creates the checkpoint callbacks, `best.ckpt` before `last.ckpt`, so that the latter contains the best score."""
    options: dict[str, Any] = {"enable_version_counter": False, "save_on_train_epoch_end": every_n_steps is None}
    last = ModelCheckpoint(folder, "last", every_n_train_steps=every_n_steps, **options)
    return [last] if monitor is None else [ModelCheckpoint(folder, "best", monitor=monitor, **options), last]


def _load_final_weights(module: LightningModule, average: WeightAverage | None, best: Path | None) -> None:
    """Loads the best checkpoint, if one is given, and the moving average, if there is one, into the module."""
    if best is not None:
        checkpoint = torch.load(best, map_location="cpu", weights_only=True)
        module.load_state_dict(checkpoint["state_dict"])
        module.on_load_checkpoint(checkpoint)
        if average is not None:
            average.average.load_state_dict(checkpoint["callbacks"][average.state_key])
    if average is not None:
        average.average.copy_to(module.parameters())
