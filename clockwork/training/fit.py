"""Lightning's Trainer as every objective uses it: resuming, checkpoints, one log."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar


def fit(
    module: LightningModule,
    output: Path,
    data: LightningDataModule | None = None,
    callbacks: tuple[Callback, ...] = (),
    every_n_steps: int | None = None,
    **trainer: Any,
) -> Trainer:
    """Trains to the end, from `output/checkpoints/last.ckpt` where there is one.

    A checkpoint an epoch, or every `every_n_steps`. Checkpoints are read with `weights_only`.
    """
    keep = ModelCheckpoint(output / "checkpoints", save_last=True, every_n_train_steps=every_n_steps)
    last = output / "checkpoints" / "last.ckpt"
    bar = [TQDMProgressBar(refresh_rate=10)] if trainer.get("enable_progress_bar", True) else []
    fitting = Trainer(
        default_root_dir=output,
        callbacks=[keep, *bar, *callbacks],
        use_distributed_sampler=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **trainer,
    )
    fitting.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
    return fitting


def adam(parameters: Iterable[torch.nn.Parameter], learning_rate: float, epochs: int, decay: bool) -> Any:
    """Adam; with `decay` its rate falls to nothing over the epochs, along a cosine."""
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    return ([optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)]) if decay else optimizer
