"""Lightning's Trainer as every objective uses it: resuming, checkpoints, one log, and what a stopped run leaves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from clockwork.errors import UserError
from clockwork.training.callbacks import ProgressBar, StayStopped, StopWhenNotFinite, WeightAverage
from clockwork.training.interruption import StopAtSigterm, interruptible

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
    """Trains to the end, from `output/checkpoints/last.ckpt` where there is one; then the module holds the weights to
    keep.

    Args:
        module: What is trained.
        output: Folder of the checkpoints.
        data: The examples, unless the module brings its own.
        callbacks: More of them; `Checkpoint` callbacks run after the epoch's checkpoint is written.
        every_n_steps: Training steps between two checkpoints; by default one is written per epoch.
        ema: Decay of the weights' exponential moving average, which is then kept in place of the weights themselves.
        monitor: The figure whose lowest value makes `best.ckpt`, such as `val/loss`; without one, nothing is validated.
        keep: Which weights are kept: the `last` epoch's, or the `best` by `monitor`.
        patience: Epochs without a new lowest `monitor` after which training stops; by default it does not.
        trainer: Lightning's own options.

    Raises:
        UserError: The options do not go together (`check_options`), or the loss or a gradient was not finite.
        KeyboardInterrupt: Ctrl-C, after Lightning's teardown; its message names what is kept.
        SystemExit: With status 143 after SIGTERM.
    """
    check_options(keep, patience, ema, trainer.get("precision", "32-true"), monitor is not None)
    folder = output / "checkpoints"
    average = None if ema is None else WeightAverage(ema)
    watching: list[Callback] = [StopAtSigterm(), StopWhenNotFinite()]
    if average is not None:
        watching.append(average)
    if patience is not None:
        watching.append(StayStopped(monitor, patience=patience, check_on_train_epoch_end=True))
    if trainer.get("enable_progress_bar", True):
        watching.append(ProgressBar(refresh_rate=20))
    settings = {"log_every_n_steps": 1, "enable_model_summary": False, "num_sanity_val_steps": 0, **trainer}
    fitting = Trainer(
        default_root_dir=output,
        callbacks=[*watching, *_checkpoints(folder, monitor, every_n_steps), *callbacks],
        use_distributed_sampler=False,
        inference_mode=False,
        limit_val_batches=0 if monitor is None else None,
        **settings,
    )
    last = folder / "last.ckpt"
    with interruptible(fitting, last):
        fitting.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
    _take_weights(module, average, folder / "best.ckpt" if keep == "best" else None)
    return fitting


def check_options(keep: str, patience: int | None, ema: float | None, precision: str, validated: bool) -> None:
    """Raises a UserError for options of `fit` that do not exist or do not go together."""
    if keep not in KEEP:
        raise UserError(f"keep={keep} is not known: use {' or '.join(KEEP)}")
    if not validated and (keep == "best" or patience is not None):
        what = "keep=best" if keep == "best" else f"patience={patience}"
        raise UserError(f"{what} needs validation figures: set val_prompts to 1 or more")
    if ema is not None and not 0 < ema < 1:
        raise UserError(f"ema={ema} is not a decay: use a number between 0 and 1, such as 0.999, or null")
    if precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={precision} does not keep the weights in float32: use {', '.join(PRECISIONS)}"
        )


def _checkpoints(folder: Path, monitor: str | None, every_n_steps: int | None) -> list[Callback]:
    """`best.ckpt` before `last.ckpt`, so that the last knows the best's score."""
    options: dict[str, Any] = {"enable_version_counter": False, "save_on_train_epoch_end": every_n_steps is None}
    last = ModelCheckpoint(folder, "last", every_n_train_steps=every_n_steps, **options)
    return [last] if monitor is None else [ModelCheckpoint(folder, "best", monitor=monitor, **options), last]


def _take_weights(module: LightningModule, average: WeightAverage | None, best: Path | None) -> None:
    """Puts the weights to keep, and their epoch's figures, into the module."""
    if best is not None:
        checkpoint = torch.load(best, map_location="cpu", weights_only=True)
        module.load_state_dict(checkpoint["state_dict"])
        module.on_load_checkpoint(checkpoint)
        if average is not None:
            average.average.load_state_dict(checkpoint["callbacks"][average.state_key])
    if average is not None:
        average.average.copy_to(module.parameters())
